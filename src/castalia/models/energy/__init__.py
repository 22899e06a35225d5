"""Boltzmann machines and other models that are given by an energy."""
