"""Normalizing flows."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "nice",
        "NICE",
        "flows.nice:NICE",
        media=("image", "points"),
        paper="Dinh, Krueger & Bengio 2014 (arXiv:1410.8516)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="The simplest flow: every picture is a code turned inside out, and how likely it is follows "
        "exactly. Quick to learn; samples are coarse.",
    ),
    Entry(
        "realnvp",
        "RealNVP",
        "flows.realnvp:RealNVP",
        media=("image", "points"),
        paper="Dinh, Sohl-Dickstein & Bengio 2016 (arXiv:1605.08803)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="A flow for points and pictures: exact codes, exact likelihoods, samples in one pass. Shapes are "
        "looser than diffusion's.",
    ),
    Entry(
        "glow",
        "Glow",
        "flows.glow:Glow",
        media=("image", "points"),
        paper="Kingma & Dhariwal 2018 (arXiv:1807.03039)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="The strongest flow here: exact codes to walk, blend and edit in, good likelihoods, samples in "
        "one pass. Wants many minutes.",
    ),
    Entry(
        "maf",
        "Masked autoregressive flow (MAF)",
        "flows.maf:MAF",
        media=("image", "points"),
        paper="Papamakarios, Pavlakou & Murray 2017 (arXiv:1705.07057); MADE: Germain et al. 2015 (arXiv:1502.03509)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="Exact densities of points and tables, each value given those before it; mixtures where one bell "
        "curve does not fit.",
    ),
    Entry(
        "nsf",
        "Neural spline flow",
        "flows.nsf:NSF",
        media=("image", "points"),
        paper="Durkan, Bekasov, Murray & Papamakarios 2019 (arXiv:1906.04032)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="The flow for points with sharp edges and holes: splines bend where the data want it. Exact "
        "densities, quick both ways.",
    ),
    Entry(
        "ffjord",
        "Continuous flow (FFJORD)",
        "flows.ffjord:FFJORD",
        media=("image", "points"),
        paper="Grathwohl et al. 2019 (arXiv:1810.01367); neural ODEs: Chen et al. 2018 (arXiv:1806.07366)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="Points flow along a smooth path to noise and back, by any network. Beautiful films of how; slow to "
        "train.",
    ),
    Entry(
        "tarflow",
        "Transformer autoregressive flow (TarFlow)",
        "flows.tarflow:TarFlow",
        media=("image",),
        paper="Zhai et al. 2024 (arXiv:2412.06329)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="The newest flow: transformers over patches, sharp samples by noise and its removal, guided by class. "
        "Patch by patch to draw.",
    ),
)
