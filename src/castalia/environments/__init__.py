"""Environments that models can act in, by name: ``base.py`` has the table. Models and media know of them, they of neither."""
