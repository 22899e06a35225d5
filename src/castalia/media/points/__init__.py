"""Points: vectors of a few coordinates.

* ``array.py``: :class:`PointsArray`, a data set of points.
* ``toys.py``: built-in sets whose distribution is known (a ring and a grid of Gaussians, a roll, two moons).
* ``files.py``: :func:`open_points`, from CSV, TSV and ``.npy`` files.
* ``draw.py``: scatter plots and histograms; ``medium.py``: :class:`PointsMedium`, the medium.
"""
