"""The shape of one example, a file for each medium. Models and media both speak of it, and do not know each other."""
