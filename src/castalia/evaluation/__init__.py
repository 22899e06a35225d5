"""Measuring: every number with its unit, its kind, how many examples, the seed and an interval.

metric.py       Metric, and intervals
likelihood.py   nats and bits/dim of models that are a Density; how much of the latents is used
mixtures.py     Bernoulli and Gaussian mixtures, fitted and scored
baselines.py    trivial models in the same units: independent pixels, the best mixture
pictures.py     reconstruction error, nearest training pictures, sampling speed
evaluate.py     what a run's capabilities allow, measured and recorded
progress.py     how long it still takes
report.py       self-contained HTML pages
"""
