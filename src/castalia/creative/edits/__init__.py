"""The edits, a file each. They are listed in :mod:`castalia.creative.table`."""
