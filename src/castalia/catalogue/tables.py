"""Tables."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "ctgan",
        "CTGAN",
        "tables.ctgan:CTGAN",
        media=("table",),
        paper="Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019 (arXiv:1907.00503)",
        capabilities=("Generator", "Latents"),
        good="Synthetic rows of mixed kinds by an adversarial game that sees rare categories; asks for any column.",
    ),
    Entry(
        "tvae",
        "TVAE",
        "tables.tvae:TVAE",
        media=("table",),
        paper="Xu, Skoularidou, Cuesta-Infante & Veeramachaneni 2019 (arXiv:1907.00503)",
        capabilities=("Generator", "Latents", "Inference"),
        good="Synthetic rows in a minute or two; steady to train, and near to its data.",
    ),
    Entry(
        "tabddpm",
        "TabDDPM",
        "tables.tabddpm:TabDDPM",
        media=("table",),
        paper="Kotelnikov, Baranchuk, Rubachev & Babenko 2023 (arXiv:2209.15421)",
        capabilities=("Generator",),
        good="Synthetic rows by diffusion: the nearest to real ones, by class of a target; a hundred steps a row.",
    ),
)
