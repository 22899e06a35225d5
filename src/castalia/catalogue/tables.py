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
)
