"""Episodes: frames, actions, rewards and ends of an environment, kept as one ``.npz`` each.

``shards.py``: reading and writing a file; ``read.py``: from a path to a data set; ``table.py``: the data set;
``record.py``: recording one; ``draw.py``: strips and films.
"""
