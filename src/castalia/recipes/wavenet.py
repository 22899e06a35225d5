"""Recipes of WaveNet.

An ``expected`` limit is one that the recipe was seen to meet with the commands on the system's page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from castalia.configuration import Data, Expected, Recipe, Schedule, Training
from castalia.core.model import Optimizer
from castalia.media.audio.decode import AudioOptions
from castalia.models.sound.wavenet import WaveNetConfig
from castalia.recipes.preset import Preset


def vowels() -> Recipe:
    """Sung vowels that are made by a formula: the demo."""
    return Recipe(
        model="wavenet",
        config=WaveNetConfig(layers=7, channels=24, skip=48),
        data=Data("vowels", medium="audio", options=AudioOptions(length=512)),
        training=Training(steps=1_500, batch_size=8, lr=4e-3, clip=1.0, ema_half_life=1_000),
    )


def tiny() -> Recipe:
    """The same with a small network: for tests."""
    base = vowels()
    return replace(
        base,
        config=replace(base.config, layers=4, channels=8, skip=16),
        data=Data("vowels", medium="audio", options=AudioOptions(length=256)),
        training=replace(base.training, lr=1e-2, ema_half_life=100),
    )


def digits() -> Recipe:
    """Spoken digits by word, 8 kHz: twenty minutes on two cores."""
    return Recipe(
        model="wavenet",
        config=WaveNetConfig(),
        data=Data("free-spoken-digits", medium="audio", options=AudioOptions(channels=1, length=4096)),
        training=Training(
            minutes=20,
            # many small steps: clips are long, and two of them are eight thousand predictions
            batch_size=2,
            lr=4e-3,
            schedule=Schedule("cosine", warmup=100, end=0.02),
            clip=1.0,
            ema_half_life=1_000,
        ),
        # met in half the time on one thread (4.32); a Markov chain of order 2 has 5.08
        expected=(
            Expected(
                "bits_per_sample", at_most=4.5, published="none of this data; order-2 Markov chain 5.08", minutes=20
            ),
        ),
    )


def digits_mixture() -> Recipe:
    """The same with a mixture of logistics over 16-bit values."""
    base = digits()
    return replace(base, config=replace(base.config, output="mixture"), expected=())


def voices() -> Recipe:
    """Spoken digits by word and by speaker."""
    base = digits()
    options = AudioOptions(channels=1, length=4096, speakers="*_{label}_*")
    data = Data("free-spoken-digits", medium="audio", options=options)
    return replace(base, config=replace(base.config, voices=True), data=data, expected=())


def vocoder() -> Recipe:
    """A vocoder of spoken digits: sound from 40 mel bands, a frame every 8 milliseconds."""
    base = digits()
    config = replace(base.config, conditional=False, mel=40, hop=64)
    return replace(base, config=config, expected=())


def audio() -> Recipe:
    """Any recordings, mixed down to mono at 16 kHz: the default for people's own folders."""
    return Recipe(
        model="wavenet",
        config=WaveNetConfig(blocks=2, layers=10, kernel=2, channels=48, skip=96),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=8192)),
        training=Training(
            steps=20_000,
            batch_size=4,
            lr=2e-3,
            schedule=Schedule("cosine", warmup=500, end=0.02),
            clip=1.0,
            ema_half_life=5_000,
        ),
    )


def paper() -> Recipe:
    """A network of the paper's kind and a published size, for a machine with time.

    The paper gives the dilations (1 to 512, repeated) and not the widths. Four blocks of ten layers with 64 channels
    (128 in the gate), two taps, crops of 1,600 predictions and Adam at 1e-3 are what Mehri et al. 2017 (SampleRNN,
    arXiv:1612.07837) trained for a week as their WaveNet; 256 skip channels are ours.
    """
    return Recipe(
        model="wavenet",
        config=WaveNetConfig(blocks=4, layers=10, kernel=2, channels=64, skip=256),
        data=Data("recordings", medium="audio", options=AudioOptions(rate=16_000, channels=1, length=4094 + 1600)),
        training=Training(
            steps=500_000,
            batch_size=8,
            lr=1e-3,
            optimizer=Optimizer("adam", betas=(0.9, 0.999)),
            schedule=Schedule("constant", warmup=0),
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "wavenet-vowels": vowels,
    "wavenet-digits": digits,
    "wavenet-digits-mixture": digits_mixture,
    "wavenet-voices": voices,
    "wavenet-vocoder": vocoder,
    "wavenet-audio": audio,
    "wavenet-paper": paper,
    "wavenet-tiny": tiny,
}

DEFAULTS: dict[str, str] = {
    "vowels": "wavenet-vowels",
    "free-spoken-digits": "wavenet-digits",
    "audio:*": "wavenet-audio",
}

PRESETS: dict[str, tuple[Preset, ...]] = {
    "audio": (Preset("wavenet-audio", 2_000, 100_000, "sound of the right colour, words not yet to be told"),),
}

DEMO = "wavenet-vowels"

TINY = "wavenet-tiny"
