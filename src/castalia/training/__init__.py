"""Training: one linear loop and the things that it applies to a model from outside.

loop.py        the loop; start reading here
sentences.py   what a training says of itself in words
plan.py        steps, precision and threads, decided once per run and stored
optimizers.py  optimizers, schedules, and their state as plain tensors
ema.py         averaged weights
parallel.py    processes: shares of a batch, averaged gradients, agreement
sharding.py    FSDP2: each process keeps its part of every parameter
splitting.py   tensor parallelism: processes share each block
recomputing.py activation checkpointing
signals.py     SIGTERM, SIGINT
forecast.py    what a training would need on devices that are not here, from costs.py and machines.py
progress.py    what a person sees while it runs, metrics.jsonl, trackers
"""
