"""Skeletons that move."""
