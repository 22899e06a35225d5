"""Diffusion."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "ddpm",
        "Denoising diffusion (DDPM, DDIM)",
        "diffusion.ddpm:DDPM",
        media=("image", "points"),
        paper="Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 "
        "(arXiv:2010.02502); Nichol & Dhariwal 2021 (arXiv:2102.09672)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="The most faithful pictures of all families here, steered by class, filled in and redrawn. Slow: "
        "dozens of network calls for each.",
    ),
    Entry(
        "edm",
        "Preconditioned diffusion (EDM)",
        "diffusion.edm:EDM",
        media=("image", "points"),
        paper="Karras et al. 2022 (arXiv:2206.00364); likelihood: Song et al. 2021 (arXiv:2011.13456)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="Diffusion set up so that it learns evenly at all noise levels: fewer steps for the same quality, "
        "and an exact likelihood.",
    ),
    Entry(
        "flow-matching",
        "Flow matching and rectified flow",
        "diffusion.flow_matching:FlowMatching",
        media=("image", "points"),
        paper="Lipman et al. 2023 (arXiv:2210.02747); Liu et al. 2023 (arXiv:2209.03003)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="Diffusion on straight paths: the simplest loss, good pictures in few steps; with reflow in one or two.",
    ),
    Entry(
        "consistency",
        "Consistency models",
        "diffusion.consistency:Consistency",
        media=("image", "points"),
        paper="Song et al. 2023 (arXiv:2303.01469); Song & Dhariwal 2024 (arXiv:2310.14189)",
        capabilities=("Generator", "Latents", "Refinement", "Exportable"),
        good="A picture in one or two evaluations, with or without a teacher. Training is delicate.",
    ),
    Entry(
        "dit",
        "Diffusion transformer (DiT)",
        "diffusion.dit:DiT",
        media=("image",),
        paper="Peebles & Xie 2023 (arXiv:2212.09748)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="Diffusion with a transformer: what grows best with data and machines, and wants much of both.",
    ),
    Entry(
        "classifier-guidance",
        "Diffusion led by a classifier (ADM-G)",
        "diffusion.classifier_guidance:ClassifierGuidance",
        media=("image", "points"),
        paper="Dhariwal & Nichol 2021 (arXiv:2105.05233)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="A diffusion that was never told of classes, led to them by a classifier that is trained afterwards: for "
        "finished runs and new labels.",
    ),
    Entry(
        "autoguidance",
        "Diffusion led away from a bad version of itself",
        "diffusion.autoguidance:Autoguidance",
        media=("image", "points"),
        paper="Karras et al. 2024 (arXiv:2406.02507); the denoisers: Karras et al. 2022 (arXiv:2206.00364)",
        capabilities=("Generator", "Density", "Latents", "Refinement", "Reversible", "Exportable"),
        good="For a diffusion run whose samples are not good enough yet, with or without labels: a second, small "
        "network shows what is wrong.",
    ),
    Entry(
        "cascade",
        "Cascaded diffusion (CDM)",
        "diffusion.cascade:Cascade",
        media=("image",),
        paper="Ho et al. 2021 (arXiv:2106.15282); the denoisers: Karras et al. 2022 (arXiv:2206.00364)",
        capabilities=("Generator", "Latents", "Refinement", "Upscaling", "Exportable"),
        good="Larger pictures than one diffusion can learn in the time: a small one first, then enlarged by networks "
        "that learn detail; they enlarge pictures of one's own, too.",
    ),
)
