"""What people do with a trained model's latents, for any model that declares ``Latents``.

interpolation.py  paths between latents: straight lines, arcs, walks through many points
latents.py        reconstruct, interpolate, random walks, traversals
attributes.py     directions that stand for a class or a word; adding them; latent arithmetic
maps.py           two-dimensional maps of a latent space, and where data lie on them
"""
