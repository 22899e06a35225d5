"""Pictures and words."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "clip",
        "CLIP",
        "multimodal.clip:CLIP",
        media=("image",),
        paper="Radford et al. 2021 (arXiv:2103.00020)",
        capabilities=("Perception", "Matching", "Exportable"),
        good="Tells which picture and which words belong together: search by words, classes by their names. "
        "It makes nothing itself.",
    ),
    Entry(
        "dalle",
        "DALL-E",
        "multimodal.dalle:DALLE",
        media=("image",),
        paper="Ramesh et al. 2021 (arXiv:2102.12092)",
        capabilities=("Generator", "Refinement", "Matching", "Exportable"),
        good="Pictures of words by one transformer over words and codes; it writes captions too, fills in, and takes "
        "the best of many by its own CLIP.",
    ),
    Entry(
        "unclip",
        "DALL-E 2 (unCLIP)",
        "multimodal.unclip:UnCLIP",
        media=("image",),
        paper="Ramesh et al. 2022 (arXiv:2204.06125); Nichol et al. 2022 (arXiv:2112.10741)",
        capabilities=("Generator", "Latents", "Inference", "Refinement", "Upscaling", "Matching", "Exportable"),
        good="Pictures of words by way of CLIP's embeddings: variations of a given picture, mixes of two, words added "
        "to one.",
    ),
    Entry(
        "latent-diffusion",
        "Latent diffusion",
        "multimodal.latent_diffusion:LatentDiffusion",
        media=("image",),
        paper="Rombach et al. 2022 (arXiv:2112.10752); Peebles & Xie 2023 (arXiv:2212.09748)",
        capabilities=("Generator", "Refinement", "Exportable"),
        good="Diffusion where an autoencoder has made pictures small: large pictures at a fraction of the cost, by "
        "words, by class or alone.",
    ),
    Entry(
        "dreambooth",
        "DreamBooth",
        "multimodal.dreambooth:DreamBooth",
        media=("image",),
        paper="Ruiz et al. 2023 (arXiv:2208.12242)",
        capabilities=("Generator", "Refinement", "Exportable"),
        good="Teaches a finished run of latent diffusion a subject from a handful of pictures, with its own pictures "
        "of the kind beside, so that it forgets nothing.",
    ),
    Entry(
        "textual-inversion",
        "Textual inversion",
        "multimodal.textual_inversion:TextualInversion",
        media=("image",),
        paper="Gal et al. 2022 (arXiv:2208.01618)",
        capabilities=("Generator", "Refinement", "Exportable"),
        good="A subject as one new word of a finished run of latent diffusion: a file of kilobytes, and nothing else "
        "changes.",
    ),
    Entry(
        "picture-lora",
        "LoRA of pictures",
        "multimodal.picture_lora:PictureLoRA",
        media=("image",),
        paper="Hu et al. 2021 (arXiv:2106.09685)",
        capabilities=("Generator", "Refinement", "Exportable"),
        good="A subject or a manner as a small addition to the attention of a finished run of latent diffusion, taken "
        "out again as easily.",
    ),
)
