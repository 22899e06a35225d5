"""Proteins: ``alphafold.py``, with its parts in the other files."""
