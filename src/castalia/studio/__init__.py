"""The studio: one web page in which runs are played with."""
