"""Adversarial networks: a generator against a critic."""
