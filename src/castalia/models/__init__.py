"""Systems, one file each, by family."""
