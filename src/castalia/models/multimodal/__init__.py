"""Pictures and words: what tells which belong together, and what makes pictures of words."""
