"""Pixel by pixel."""

from castalia.catalogue.record import Entry

ENTRIES = (
    Entry(
        "pixelcnn",
        "PixelCNN (gated, and plain)",
        "pixels.pixelcnn:PixelCNN",
        media=("image",),
        paper="van den Oord et al. 2016 (arXiv:1601.06759); gates, labels, no blind spot: van den Oord et al. 2016 "
        "(arXiv:1606.05328)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="Pixel by pixel with exact likelihoods, the best of all families for small pictures; completes a "
        "picture from its upper part. Drawing is slow.",
    ),
    Entry(
        "pixelcnn-pp",
        "PixelCNN++",
        "pixels.pixelcnn_pp:PixelCNNPP",
        media=("image",),
        paper="Salimans et al. 2017 (arXiv:1701.05517)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="PixelCNN for colour: a smooth distribution over 256 values, both coarse and fine structure. "
        "Exact likelihoods; drawing is slow.",
    ),
    Entry(
        "pixelrnn",
        "PixelRNN (Row LSTM, Diagonal BiLSTM)",
        "pixels.pixelrnn:PixelRNN",
        media=("image",),
        paper="van den Oord et al. 2016 (arXiv:1601.06759)",
        capabilities=("Generator", "Density", "Streaming", "Exportable"),
        good="The same with a recurrent memory over rows and diagonals: sees all that came before. Slower to "
        "train than PixelCNN.",
    ),
)
