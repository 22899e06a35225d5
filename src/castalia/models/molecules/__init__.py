"""Molecules, as graphs and as strings."""
