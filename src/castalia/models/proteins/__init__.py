"""Proteins: ``alphafold.py`` with ``inputs.py``, ``evoformer.py``, ``structure.py``, ``losses.py``, geometry."""
