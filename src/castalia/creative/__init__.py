"""What people do with a trained model beside sampling it.

edit.py           what an edit is, and its options that describe themselves
table.py          the one table of edits
edits/            the edits, a file each
interpolation.py  paths between latents: straight lines, arcs, walks through many points
latents.py        reconstruct, interpolate, random walks, traversals
attributes.py     directions that stand for a class or a word; adding them; latent arithmetic
maps.py           two-dimensional maps of a latent space, and where data lie on them
priors.py         priors fitted to the latents of data
"""
