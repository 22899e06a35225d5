"""Layers and distributions that several families share.

residual.py      residual blocks without normalisation
likelihoods.py   Bernoulli, Gaussian and logistic-mixture likelihoods of 8-bit pictures
labels.py        class labels: their shares, the null class
units.py         pictures and points in units of order 1; bins.py: probabilities of their values under Gaussians
unet.py          the U-Net of diffusion, from the five below
attention.py     self-attention over the places of a picture
causal.py        self-attention that looks back, with a cache, and the block of a transformer around it
convolutions.py  3x3 and 1x1 convolutions, and enlarging with one, called in the fastest way
winograd.py      3x3 convolutions with a quarter of the multiplications
embeddings.py    sinusoidal and Fourier features of times
groupnorm.py     group normalisation with conditioning and SiLU in one
"""
