"""Video."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "video-gpt",
        "VideoGPT",
        "video.video_gpt:VideoGPT",
        media=("video",),
        paper="Yan et al. 2021 (arXiv:2104.10157)",
        capabilities=("Generator", "Exportable"),
        good="Clips written code by code, by class or from first frames. Sharp where codes are fine enough.",
    ),
    Entry(
        "video-diffusion",
        "Video diffusion",
        "video.video_diffusion:VideoDiffusion",
        media=("video",),
        paper="Ho et al. 2022 (arXiv:2204.03458)",
        capabilities=("Generator", "Exportable"),
        good="Clips by the removal of noise from all frames together: smooth motion, by class or going on from first "
        "frames. Slow to train.",
    ),
)
