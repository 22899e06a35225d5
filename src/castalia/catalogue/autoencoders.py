"""Autoencoders."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "vae",
        "Variational autoencoder",
        "autoencoders.vae:VAE",
        media=("image",),
        paper="Kingma & Welling 2014 (arXiv:1312.6114); Rezende et al. 2014 (arXiv:1401.4082); "
        "importance weighting: Burda et al. 2016 (arXiv:1509.00519)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Perception", "Exportable"),
        good="Fast to train, draws at once, and has a map of everything it makes: walks, blends, "
        "reconstructions. Fine detail comes out soft.",
    ),
    Entry(
        "vqvae",
        "Vector-quantised autoencoder (VQ-VAE)",
        "autoencoders.vqvae:VQVAE",
        media=("image",),
        paper="van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv:1711.00937)",
        capabilities=("Generator", "Density", "Refinement", "Perception", "Exportable"),
        good="Pictures as a few words of a learned vocabulary, and a language model over them: sharp "
        "reconstructions, samples by class.",
    ),
    Entry(
        "vqvae2",
        "Two-level VQ-VAE (VQ-VAE-2)",
        "autoencoders.vqvae2:VQVAE2",
        media=("image",),
        paper="Razavi, van den Oord & Vinyals 2019 (arXiv:1906.00446)",
        capabilities=("Generator", "Density", "Refinement", "Exportable"),
        good="A VQ-VAE with a coarse grid for the whole and a fine one for details: larger pictures from the same "
        "kind of codes.",
    ),
    Entry(
        "iaf",
        "VAE with inverse autoregressive flow (IAF)",
        "autoencoders.iaf:IAF",
        media=("image",),
        paper="Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling 2016 (arXiv:1606.04934)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Perception", "Exportable"),
        good="A VAE that describes its codes more exactly: better likelihoods from the same networks, and the "
        "same latent space to walk in.",
    ),
    Entry(
        "vdvae",
        "Very deep VAE",
        "autoencoders.vdvae:VDVAE",
        media=("image",),
        paper="Child 2021 (arXiv:2011.10650)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="A VAE with latents at every size, from one pixel to all: the best likelihoods of autoencoders, and "
        "one pass to draw.",
    ),
)
