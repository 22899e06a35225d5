"""Molecules with wanted properties: search under a budget of calls of a score."""
