"""What a Jukebox is made of, and how it is asked: its settings."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.core.config import Config
from castalia.core.sampling import Sampling
from castalia.core.specs.audio import AudioSpec
from castalia.models.sound.codec import Resolution


@dataclass(frozen=True)
class JukeboxConfig(Config):
    """Configuration of a Jukebox. Levels stand from the bottom (the finest) to the top.

    Attributes:
        downs: halvings of the rate of each level, rising.
        width: channels of the autoencoders.
        depth: residual blocks after each halving.
        growth: of their dilations.
        multipliers: width and depth of each level are so many times as large; () is once. The paper's are (2, 1, 1).
        codes: size of each codebook.
        dims: of a code.
        decay: of the codebooks' averages.
        restart: a code whose share is below this part of the mean one begins anew; 0: never.
        commitment: weight of the commitment.
        maximum: weight of the largest squared errors.
        spectral: weight of the loss on spectra.
        resolutions: of the spectra: points, distance and length of windows, in samples.
        context: codes of a window of each level's prior.
        row: codes in a row of the attention patterns of each level; 0: dense.
        prior_dim: of a token of each level's prior.
        prior_layers: blocks of each.
        prior_heads: of attention.
        prior_dropout: share that they drop.
        prior_attention: dimensions of queries, keys and values, as a share of prior_dim; the paper's is 0.25.
        prior_hidden: width of the blocks' perceptrons, as a multiple of prior_dim; the paper's is 1.
        letters: bytes of words that are told, where the data have captions; the top level alone is told.
        letter_loss: weight of the words' own prediction.
        drop: share of examples whose voice, label and words are left out.
        conditional: whether labels are used, where the data have them.
        codec_share: of the training that the autoencoders get; the priors share the rest.
    """

    downs: tuple[int, ...] = (3, 5, 7)
    width: int = 32
    depth: int = 4
    growth: int = 3
    multipliers: tuple[int, ...] = ()
    codes: int = 2048
    dims: int = 64
    decay: float = 0.99
    restart: float = 0.1
    commitment: float = 0.02
    maximum: float = 0.02
    spectral: float = 1.0
    resolutions: tuple[Resolution, ...] = ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240))
    context: tuple[int, ...] = (8192, 8192, 8192)
    row: tuple[int, ...] = (128, 128, 128)
    prior_dim: tuple[int, ...] = (1920, 1920, 4800)
    prior_layers: tuple[int, ...] = (72, 72, 72)
    prior_heads: int = 8
    prior_dropout: float = 0.0
    prior_attention: float = 1.0
    prior_hidden: float = 4.0
    letters: int = 0
    letter_loss: float = 0.4
    drop: float = 0.1
    conditional: bool = True
    codec_share: float = 0.4

    def __post_init__(self) -> None:
        levels = len(self.downs)
        if levels < 1 or list(self.downs) != sorted(set(self.downs)) or self.downs[0] < 1:
            raise ValueError("downs are positive and rise from level to level")
        if any(len(v) != levels for v in (self.context, self.row, self.prior_dim, self.prior_layers)):
            raise ValueError(f"context, row, prior_dim and prior_layers have one value for each of {levels} levels")
        if self.multipliers and (len(self.multipliers) != levels or min(self.multipliers) < 1):
            raise ValueError(f"multipliers has one positive number for each of {levels} levels, or none")
        if min(self.width, self.dims, *self.context, *self.prior_dim, *self.prior_layers) < 1 or self.codes < 2:
            raise ValueError("sizes must be positive, codes at least 2")
        if not 0 < self.prior_attention <= 4 or not 0 < self.prior_hidden <= 16 or self.prior_heads < 1:
            raise ValueError("prior_attention lies in (0, 4], prior_hidden in (0, 16], prior_heads is positive")
        if any(round(d * self.prior_attention) % self.prior_heads for d in self.prior_dim):
            raise ValueError("prior_heads must divide every prior_dim, or the share of it that attention has")
        for below, above in zip(self.downs, self.downs[1:], strict=False):
            if self.context[self.downs.index(below)] % (1 << (above - below)):
                raise ValueError("a context is a whole number of codes of the level above")
        if min(self.depth, self.letters, *self.row) < 0 or self.growth < 1 or not 0 < self.codec_share < 1:
            raise ValueError("depth, letters and row must not be negative, codec_share lies between 0 and 1")
        if not 0 <= self.drop < 1 or not 0 <= self.decay < 1 or not 0 <= self.prior_dropout < 1:
            raise ValueError("drop, decay and prior_dropout lie in [0, 1)")

    @property
    def hops(self) -> tuple[int, ...]:
        """Samples of a code of each level."""
        return tuple(1 << d for d in self.downs)


@dataclass(frozen=True)
class JukeboxSampling(Sampling):
    """How to sample.

    Attributes:
        length: of the sound, or of what comes after a prompt: a whole number is samples, a number with a point is
            seconds; None is the length of a training crop.
        top_k: only so many of the likeliest codes; 0: all.
        top_p: only the likeliest codes that together have this probability; 1: all.
        overlap: share of a context that is kept when a window moves on.
        upsample: nothing new is made up: the prompt's codes of the top level are kept, those below written anew.
    """

    length: int | float | None = None
    top_k: int = 0
    top_p: float = 1.0
    overlap: float = 0.5
    upsample: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length is not None and (isinstance(self.length, bool) or not 0 < self.length < 1e9):
            raise ValueError("length must be positive: samples, or seconds where it has a point (1.0)")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.overlap < 1:
            raise ValueError("top_k must not be negative, top_p lies in (0, 1], overlap in [0, 1)")

    def samples(self, spec: AudioSpec) -> int:
        """How many samples that is."""
        if self.length is None:
            return spec.length
        return self.length if isinstance(self.length, int) else max(1, round(self.length * spec.rate))
