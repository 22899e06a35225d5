"""Proteins: ``alphafold.py`` with ``inputs.py``, ``evoformer.py``, ``structure.py``, ``invariant.py``, ``frames.py``, ``losses.py``."""
