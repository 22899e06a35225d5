"""Layers and distributions that several families share.

residual.py     residual blocks, dense and convolutional
likelihoods.py  Bernoulli, Gaussian and logistic-mixture likelihoods of 8-bit pictures
"""
