"""Systems that make video."""
