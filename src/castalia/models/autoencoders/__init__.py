"""Autoencoders: vae.py (Kingma & Welling 2014 and importance weighting); networks.py, the nets they share."""
