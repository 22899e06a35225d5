"""The ground floor: what every room may rely on.

model.py    Model, Stage, Objective, Update, and the capabilities
data.py     Spec, Batch, Dataset, Order
rng.py      randomness as an argument
config.py   dataclasses to JSON and back, strictly
weights.py  safetensors that verify themselves
files.py    writes that survive a power cut
memory.py   memory that a process keeps between steps
locks.py    one writer at a time
threads.py  how many threads can run at once
errors.py   errors that people read
"""
