"""Statistics of numbers, whatever the numbers are of: no media, no models, no runs.

annealing.py     partition functions by annealed importance sampling, from both sides
metric.py        Metric, and intervals
distances.py     Fréchet, kernel, energy and sliced Wasserstein distance between two sets of vectors
coverage.py      precision, recall, density, coverage
modes.py         modes covered and the divergence of their shares
memorisation.py  whether vectors lie nearer to known ones than they should
mixtures.py      Bernoulli and Gaussian mixtures, fitted and scored
progress.py      how long it still takes
"""
