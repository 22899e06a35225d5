"""Music: notes on a grid of voices, or as rows of tokens.

* ``score.py``: :class:`Score`, notes with their places in time; ``midi.py``: MIDI files, in and out.
* ``grid.py``: scores on a grid of voices; ``encodings.py``: scores as tokens; ``scores.py``: examples as scores.
* ``pieces.py``: data sets of windows; ``read.py``: :func:`open_music`, from folders, zips and single files.
* ``render.py``: a score as sound; ``draw.py``: piano rolls; ``measures.py``: what a musician would count.
* ``sets.py``: sets that have a name and a tiny built-in one; ``medium.py``: :class:`MusicMedium`, the medium.
"""
