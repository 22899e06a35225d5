"""Proteins."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "alphafold",
        "AlphaFold",
        "proteins.alphafold:AlphaFold",
        media=("protein",),
        paper="Jumper et al. 2021 (doi:10.1038/s41586-021-03819-2)",
        capabilities=("Generator",),
        good="How a protein folds, from its sequence or an alignment, with how sure each residue is.",
    ),
)
