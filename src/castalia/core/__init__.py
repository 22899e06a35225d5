"""The ground floor: what every room may rely on.

model.py    Model, Generator, Stage, Objective, Update
capabilities.py  what a model can do besides sampling
sampling.py how a model is asked, and the checks of that
spec.py     what an example is made of
data.py     Batch, Dataset, Order
rng.py      randomness as an argument
config.py   dataclasses to JSON and back, strictly
weights.py  safetensors that verify themselves
files.py    writes that survive a power cut
memory.py   memory that a process keeps between steps
locks.py    one writer at a time
threads.py  how many threads can run at once
errors.py   errors that people read
"""
