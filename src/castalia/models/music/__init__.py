"""Music: ``musicvae.py`` with ``melodies.py``; ``musenet.py``; ``musegan.py``."""
