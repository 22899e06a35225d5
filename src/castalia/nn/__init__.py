"""Layers and distributions that several families share.

residual.py      residual blocks without normalisation
likelihoods.py   Bernoulli, Gaussian and logistic-mixture likelihoods of 8-bit pictures
labels.py        class labels: their shares, the null class
unet.py          the U-Net of diffusion, from the four below
attention.py     self-attention over the places of a picture
convolutions.py  upsampling with a convolution in one, and 1x1 convolutions
embeddings.py    sinusoidal and Fourier features of times
groupnorm.py     group normalisation with conditioning and SiLU in one
"""
