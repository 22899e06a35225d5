"""Tables: rows of numbers, categories, truths and dates, some missing."""
