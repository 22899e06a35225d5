"""Shapes: solid things as voxels.

* ``solids.py``: chairs, tables, lamps and cars made by code, whose parts are known.
* ``voxels.py``: arrays and binvox files; ``meshes.py``: meshes to voxels and back.
* ``read.py``: :func:`open_shapes`, from files, folders and zips; ``array.py``: :class:`ShapeArray`, a data set.
* ``cast.py``: drawing; ``measures.py``: what is said of samples; ``sets.py``: named sets; ``medium.py``:
  :class:`ShapeMedium`, the medium.
"""
