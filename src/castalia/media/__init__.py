"""Media: what is being made.

A medium reads people's files into tensors, writes samples back as files that they can open, and draws them.

* ``base.py``: the contract, :class:`~castalia.media.base.Medium`.
* ``image/``: pictures.
* ``points/``: vectors of a few coordinates.
* ``table.py``: data sets that have a name (``digits``, ``mnist``, ...); ``named.py``:
  :func:`~castalia.media.named.open_data`, from a name or a path to a data set.
* ``classes.py``: classes matched by name; ``captions.py``: captions as a column.
* ``splits.py``: the tenth that is held out of sources without splits.
* ``download.py``: one verified download.
"""
