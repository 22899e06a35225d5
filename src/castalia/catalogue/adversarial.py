"""Adversarial networks."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "gan",
        "Generative adversarial network (GAN, DCGAN)",
        "adversarial.gan:GAN",
        media=("image", "points"),
        paper="Goodfellow et al. 2014 (arXiv:1406.2661); DCGAN: Radford et al. 2016 (arXiv:1511.06434); classes: "
        "Mirza & Osindero 2014 (arXiv:1411.1784), Miyato & Koyama 2018 (arXiv:1802.05637)",
        capabilities=("Generator", "Latents", "Perception", "Exportable"),
        good="Sharp pictures in one step, by a contest of two networks. Training may fail or show few kinds of "
        "pictures: watch the variety.",
    ),
    Entry(
        "wgan",
        "Wasserstein GAN (with gradient penalty)",
        "adversarial.wgan:WGAN",
        media=("image", "points"),
        paper="Arjovsky et al. 2017 (arXiv:1701.07875); gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028)",
        capabilities=("Generator", "Latents", "Perception", "Exportable"),
        good="A GAN whose contest is steadier, at more work per step: all kinds of pictures, sharp, in one step.",
    ),
    Entry(
        "progan",
        "Progressive GAN",
        "adversarial.progan:ProGAN",
        media=("image",),
        paper="Karras et al. 2018 (arXiv:1710.10196)",
        capabilities=("Generator", "Latents", "Perception", "Exportable"),
        good="A GAN that grows from pictures of 4 pixels to large ones: shapes first, then detail, which keeps the "
        "contest steady. It sees the whole picture only in its last stage.",
    ),
    Entry(
        "biggan",
        "BigGAN and BigGAN-deep",
        "adversarial.biggan:BigGAN",
        media=("image",),
        paper="Brock et al. 2019 (arXiv:1809.11096); attention: Zhang et al. 2019 (arXiv:1805.08318)",
        capabilities=("Generator", "Latents", "Perception", "Exportable"),
        good="Many classes in one sharp generator, and variety traded for typical pictures as one draws. Wants "
        "large batches and an accelerator; its critic learns small data by heart.",
    ),
    Entry(
        "stylegan",
        "StyleGAN",
        "adversarial.stylegan:StyleGAN",
        media=("image",),
        paper="Karras, Laine & Aila 2019 (arXiv:1812.04948)",
        capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
        good="A GAN that is told a style at every layer: coarse and fine can be mixed. Its successor, stylegan2, "
        "is the one to train.",
    ),
    Entry(
        "stylegan2",
        "StyleGAN2 (with ADA)",
        "adversarial.stylegan2:StyleGAN2",
        media=("image",),
        paper="Karras et al. 2020a (arXiv:1912.04958); ADA: Karras et al. 2020b (arXiv:2006.06676)",
        capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
        good="The sharpest pictures in one step, with styles to mix and pictures to find again, from few "
        "pictures too. Long to train.",
    ),
    Entry(
        "stylegan3",
        "StyleGAN3 (T and R)",
        "adversarial.stylegan3:StyleGAN3",
        media=("image",),
        paper="Karras et al. 2021 (arXiv:2106.12423)",
        capabilities=("Generator", "Latents", "Styled", "Perception", "Exportable"),
        good="Pictures whose details move with what they are on: for films between pictures. Slower to train than "
        "stylegan2.",
    ),
)
