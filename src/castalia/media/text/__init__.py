"""Text: tokens, one behind the other.

* ``read.py``: documents from text files, source trees, JSONL and Parquet.
* ``tokens.py``: characters, bytes, byte pair encoding (learned, or GPT-2's).
* ``packing.py``: :func:`open_texts`, from files to one file of tokens in the cache; ``packed.py``: windows of it.
* ``sets.py``: named sets, and a tiny one. ``write.py``, ``draw.py``: to files and pictures.
* ``medium.py``: :class:`TextMedium`, the medium.
"""
