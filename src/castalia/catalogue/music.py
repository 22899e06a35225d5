"""Music."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "musegan",
        "MuseGAN",
        "music.musegan:MuseGAN",
        media=("music",),
        paper="Dong, Hsiao, Yang & Yang 2018 (arXiv:1709.06298)",
        capabilities=("Generator", "Latents", "Exportable"),
        good="A few bars for a whole band at once: chords, style, melody and groove can be varied one by one.",
    ),
    Entry(
        "musenet",
        "MuseNet",
        "music.musenet:MuseNet",
        media=("music",),
        paper="Payne 2019 (openai.com/index/musenet); sparse attention: Child et al. 2019 (arXiv:1904.10509)",
        capabilities=("Generator", "Density", "Streaming"),
        good="Music for several instruments in the manner of a composer, begun or continued from one's own MIDI.",
    ),
    Entry(
        "musicvae",
        "MusicVAE",
        "music.musicvae:MusicVAE",
        media=("music",),
        paper="Roberts, Engel, Raffel, Hawthorne & Eck 2018 (arXiv:1803.05428)",
        capabilities=("Generator", "Density", "Latents", "Inference"),
        good="Short melodies, drum patterns and trios with a space to walk in: morph one tune into another.",
    ),
    Entry(
        "note-transformer",
        "Note and duration transformer",
        "music.note_transformer:NoteTransformer",
        media=("music",),
        paper="Foster 2023, Generative Deep Learning (2nd edition), chapter 11; Vaswani et al. 2017 (arXiv:1706.03762)",
        capabilities=("Generator", "Density"),
        good="Melodies note by note, each with how long it lasts: exact likelihoods, and yours continued. One voice "
        "only.",
    ),
)
