"""Pictures.

* ``decode.py``: the bytes of one picture file to ``uint8`` pixels; :class:`ImageOptions`.
* ``array.py``: :class:`ImageArray`, a data set of pictures held in one array.
* ``stacked.py``: :class:`StackedArray`, three grey pictures as the channels of one.
* ``views.py``: :class:`PictureViews`, things seen from several sides, told by names of files; ``solid_views.py``:
  :class:`SolidViews`, such pictures of solids made by code.
* ``shards.py``: :class:`ImageShards`, pictures that stay on the disk; ``webdataset.py`` and ``tar.py``,
  ``parquet_shards.py``: where they lie.
* ``sources.py``: :func:`open_images`, from a path to an :class:`ImageArray` or :class:`ImageShards`; ``decoding.py``:
  from what is listed to one array.
* ``drawn.py``: shapes and letters drawn by a grammar.
* ``tree.py``, ``idx.py``, ``parquet.py``, ``arrays.py``: what lies in folders and zips, IDX, Parquet, npy
  and npz; ``layout.py``, ``metadata.py``: which split, label and caption each picture of a folder or zip has.
* ``write.py``: PNGs, grids and the recipe inside them; ``video.py``: walks as GIF, WebP, MP4 or strip.
* ``medium.py``: :class:`ImageMedium`, the medium.
"""
