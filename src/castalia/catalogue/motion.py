"""Motion."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "mdm",
        "Motion diffusion (MDM)",
        "motion.mdm:MDM",
        media=("motion",),
        paper="Tevet, Raab, Gordon, Shafir, Cohen-Or & Bermano 2022 (arXiv:2209.14916)",
        capabilities=("Generator", "Exportable"),
        good="People in motion, by kind: varied and lively; fifty steps a sample, a little trembling.",
    ),
    Entry(
        "motion-vae",
        "Motion VAE (ACTOR)",
        "motion.motion_vae:MotionVAE",
        media=("motion",),
        paper="Petrovich, Black & Varol 2021 (arXiv:2104.05670)",
        capabilities=("Generator", "Latents", "Inference"),
        good="A space of motions to walk and blend in, drawn at once; smoother and tamer than diffusion.",
    ),
)
