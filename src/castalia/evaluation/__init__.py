"""Measuring: every number with its unit, its kind, how many examples, the seed and an interval.

The statistics are in :mod:`castalia.estimators`; this floor applies them to models, runs and their media.

likelihood.py   nats and bits/dim of models that are a Density; how much of the latents is used
baselines.py    trivial models in the same units: independent pixels, the best mixture
notes.py        how well music comes back from its latents
shapes.py       how well shapes come back from a view of each
pictures.py     reconstruction error, nearest training pictures, sampling speed
features.py     feature spaces: points, networks, stacks
feature_network.py   the small network of a data set, trained once and kept
user_features.py     an ONNX network of the user's own
reference.py    all of these for one set of examples against held-out ones
drawn.py        a model's samples beside real examples and trivial ones
measures.py     which measures the samples of a medium get
evaluate.py     what a run's capabilities allow, measured and recorded
report.py       self-contained HTML pages
"""
