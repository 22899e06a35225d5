"""Molecules."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "molgan",
        "MolGAN",
        "molecules.molgan:MolGAN",
        media=("molecule",),
        paper="De Cao & Kipf 2018 (arXiv:1805.11973)",
        capabilities=("Generator", "Latents", "Exportable"),
        good="Small molecules as graphs, made in one step, and drawn towards a wanted property while it learns.",
    ),
    Entry(
        "selfies-vae",
        "SELFIES VAE",
        "molecules.selfies_vae:SelfiesVAE",
        media=("molecule",),
        paper="Gomez-Bombarelli et al. 2018 (arXiv:1610.02415); SELFIES: Krenn et al. 2020 (arXiv:1905.13741)",
        capabilities=("Generator", "Density", "Latents", "Inference"),
        good="Molecules as points of a space in which one can walk, blend and search; every sample is one that "
        "chemistry allows.",
    ),
    Entry(
        "smiles-gpt",
        "SMILES GPT",
        "molecules.smiles_gpt:SmilesGPT",
        media=("molecule",),
        paper="Bagal, Aggarwal, Vinod & Priyakumar 2022 (MolGPT, J. Chem. Inf. Model. 62)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Drug-like molecules written token by token, continued from a beginning, and taught to please a score.",
    ),
)
