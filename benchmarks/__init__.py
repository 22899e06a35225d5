"""Castalia beside what else one would use, on the same work, in one run: ``python -m benchmarks`` (``make bench``).

harness.py   two sides timed in turn, and what a row of the table is
sides.py     a side in a process of its own
ceilings.py  what this machine can do at most: matrix products, convolutions, copying
vae.py       training beside pythae
unet.py      training and sampling beside diffusers
samplers.py  steps of the samplers beside diffusers' schedulers
loops.py     the training loop beside a bare one
memory.py    ours with memory that is kept, beside ours without
metrics.py   distances beside torchmetrics and prdc
start.py     commands, imports, first step, memory

Apart, each with options of its own: mode_coverage.py (which modes of a known mixture a GAN covers), streaming.py
(pictures a second from shards), sound.py (samples of sound a second), carracing.py (controllers on random tracks) and
evaluations.py (quality against evaluations, of diffusion and its like).
"""
