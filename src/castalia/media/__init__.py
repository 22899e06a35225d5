"""Media: what is being made.

A medium reads people's files into tensors, writes samples back as files that they can open, and draws them.

* ``base.py``: the contract, :class:`~castalia.media.base.Medium`.
* ``image/``: pictures.
* ``named.py``: data sets that have a name (``digits``, ``mnist``, ...) and
  :func:`~castalia.media.named.open_data`.
* ``download.py``: one verified download.
"""
