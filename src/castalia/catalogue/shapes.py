"""Shapes."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "gan3d",
        "3D-GAN",
        "shapes.gan3d:GAN3D",
        media=("shape",),
        paper="Wu, Zhang, Xue, Freeman & Tenenbaum 2016 (arXiv:1610.07584)",
        capabilities=("Generator", "Latents", "Searchable", "Exportable"),
        good="The first of its kind: things as voxels and meshes in one step. It tends to make one shape over and "
        "over; iwgan3d, which does not, is the one to train.",
    ),
    Entry(
        "iwgan3d",
        "3D-IWGAN",
        "shapes.iwgan3d:IWGAN3D",
        media=("shape",),
        paper="Smith & Meger 2017 (arXiv:1707.09557); gradient penalty: Gulrajani et al. 2017 (arXiv:1704.00028)",
        capabilities=("Generator", "Latents", "Searchable", "Exportable"),
        good="Things of several kinds as voxels and meshes from one network, trained steadily; with views, the shape "
        "that a picture or a map of depths shows.",
    ),
    Entry(
        "voxel-vae",
        "Voxel VAE",
        "shapes.voxel_vae:VoxelVAE",
        media=("shape",),
        paper="Brock, Lim, Ritchie & Weston 2016 (arXiv:1608.04236); Kingma & Welling 2014 (arXiv:1312.6114)",
        capabilities=("Generator", "Density", "Latents", "Inference", "Exportable"),
        good="Things as voxels from a model that is trained fast and steadily, tells how likely a shape is, and finds "
        "the latents of yours at once: blends, walks. Thin parts come out soft.",
    ),
    Entry(
        "ganverse3d",
        "GANverse3D",
        "shapes.ganverse3d:GANverse3D",
        media=("image",),
        paper="Zhang et al. 2021 (arXiv:2010.09125); rasteriser: Chen et al. 2019 (arXiv:1908.01210)",
        capabilities=("Generator", "Latents", "Inference", "Meshing"),
        good="A picture becomes a textured mesh that turns, learned from views alone: of a set that has several of "
        "each thing, or of a StyleGAN2 of yours whose viewpoints you name.",
    ),
)
