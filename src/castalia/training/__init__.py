"""Training: one linear loop and the six things that it applies to a model from outside.

loop.py        the loop; start reading here
plan.py        steps, precision and threads, decided once per run and stored
optimizers.py  optimizers, schedules, and their state as plain tensors
ema.py         averaged weights
parallel.py    processes: shares of a batch, averaged gradients, agreement (sharding will live here)
signals.py     SIGTERM, SIGINT
progress.py    what a person sees while it runs, metrics.jsonl, trackers
"""
