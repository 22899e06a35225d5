"""Diffusion: ddpm.py (discrete time) and edm.py (Karras et al. 2022) over one contract, ``denoised = model(x, sigma)``.

schedules.py, samplers.py, guidance.py and likelihood.py are plain functions over that contract; units.py turns
pictures into what a process moves; drawing.py goes from options and random streams to samples.
"""
