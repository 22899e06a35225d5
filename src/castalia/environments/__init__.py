"""Environments that models can act in, by name; ``base.py`` has the table. They know neither models nor media."""
