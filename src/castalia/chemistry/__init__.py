"""What models and media know of chemistry: RDKit reads, checks and scores."""
