"""Sound."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "wavenet",
        "WaveNet",
        "sound.wavenet:WaveNet",
        media=("audio",),
        paper="van den Oord et al. 2016 (arXiv:1609.03499); queues: Paine et al. 2016 (arXiv:1611.09482); mixture "
        "output: Salimans et al. 2017 (arXiv:1701.05517)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Sound sample by sample: the right colour of voices and instruments, streamed as it is made. "
        "Words take long training.",
    ),
    Entry(
        "jukebox",
        "Jukebox",
        "sound.jukebox:Jukebox",
        media=("audio",),
        paper="Dhariwal, Jun, Payne, Kim, Radford & Sutskever 2020 (arXiv:2005.00341)",
        capabilities=("Generator",),
        good="Long sound as codes at several rates: voices and words, begun or continued from one's own recording.",
    ),
    Entry(
        "samplernn",
        "SampleRNN",
        "sound.samplernn:SampleRNN",
        media=("audio",),
        paper="Mehri et al. 2017 (arXiv:1612.07837)",
        capabilities=("Generator", "Density", "Streaming"),
        good="Sound sample by sample with a longer memory than WaveNet's; cheap to train, many streams at once.",
    ),
    Entry(
        "diffwave",
        "DiffWave",
        "sound.diffwave:DiffWave",
        media=("audio",),
        paper="Kong, Ping, Huang, Zhao & Catanzaro 2021 (arXiv:2009.09761)",
        capabilities=("Generator", "Exportable"),
        good="Sound all at once out of noise, by class; and a vocoder, which turns mel spectrograms into sound.",
    ),
)
