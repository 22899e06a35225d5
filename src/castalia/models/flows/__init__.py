"""Normalizing flows: nice.py (Dinh et al. 2014), realnvp.py (Dinh et al. 2016), glow.py (Kingma & Dhariwal 2018).

layers.py has the invertible layers, couplings.py those whose map is computed by a network, conditioners.py these
networks; multiscale.py puts layers together and ends in a prior (priors.py); units.py goes from natural units to
continuous ones; base.py is what all three can do.
"""
