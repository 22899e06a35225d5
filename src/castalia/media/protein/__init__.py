"""Proteins: chains of residues in space, sequences, alignments.

* ``chains.py``: :class:`Chains` and :class:`Sequences`, the data sets. ``read.py``: from a path to one.
* ``structures.py``: PDB and mmCIF (by biotite), and text files of coordinates. ``sequences.py``: FASTA, A3M, Stockholm.
* ``geometry.py``: where atoms lie. ``folds.py``: the built-in set. ``sets.py``: sets that have a name.
* ``write.py``: PDB and FASTA. ``draw.py``: traces and contact maps.
* ``compare.py``, ``measures.py``: what is measured. ``medium.py``: :class:`ProteinMedium`, the medium.
"""
