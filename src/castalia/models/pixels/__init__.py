"""Pictures pixel by pixel: every pixel given all before it, row by row from the left."""
