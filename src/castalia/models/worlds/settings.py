"""Configuration of a world model, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from castalia.core.config import Config
from castalia.core.sampling import Sampling
from castalia.models.worlds.cma import Covariance

StageName = Literal["vision", "memory", "controller"]


@dataclass(frozen=True)
class WorldModelConfig(Config):
    """Configuration of a world model; the defaults are the paper's for CarRacing.

    Attributes:
        latents: numbers of z, what vision makes of a frame.
        widths: channels of the encoder's convolutions.
        kernels: of the decoder's transposed convolutions; they decide how large frames are.
        error_weight: of the squared error of frames beside the KL; more keeps what is small in the picture.
        free_bits: nats of each latent's KL that cost nothing, counted over all latents of a frame.
        frames: frames of each stretch that vision sees in a step.
        hidden: units of memory.
        mixtures: components of each latent's mixture.
        rewards: memory predicts rewards; dreams are then judged by them.
        ends: memory predicts ends; dreams then end, and without rewards are judged by how long they last.
        reward_weight: of the squared error of rewards beside the nats of latents.
        end_weight: of the nats of ends.
        controller: what it is told: ``z``, ``z+h`` (and the hidden state), ``z+h+c`` (and the cell).
        bias: the controller has a constant for each action.
        practice: where controllers are tried: in the ``environment`` that the data were recorded in, or in a ``dream``.
        population: controllers of a generation.
        rollouts: episodes in which each is tried, the same for all of a generation.
        sigma: deviation of the population at the beginning.
        covariance: of the population: ``full``, or ``diagonal``, which is quicker for many numbers.
        steps: an episode of practice is cut off after so many; 0: in the environment where that does it, in a dream
            after as many as a stretch has.
        dream_temperature: of dreams in which controllers practise; above 1 they are harder than the world, and harder
            to cheat (section 4.4 of the paper).
        starts: how many beginnings of dreams are kept.
        train: stages that are trained; the others stay as they were made, or as a parent run ``world`` has them.
            Without ``memory`` it is a reservoir of random weights.
    """

    latents: int = 32
    widths: tuple[int, ...] = (32, 64, 128, 256)
    kernels: tuple[int, ...] = (5, 5, 6, 6)
    error_weight: float = 1.0
    free_bits: float = 0.5
    frames: int = 4
    hidden: int = 256
    mixtures: int = 5
    rewards: bool = False
    ends: bool = False
    reward_weight: float = 1.0
    end_weight: float = 1.0
    controller: Literal["z", "z+h", "z+h+c"] = "z+h"
    bias: bool = True
    practice: Literal["environment", "dream"] = "environment"
    population: int = 64
    rollouts: int = 16
    sigma: float = 0.1
    covariance: Covariance = "full"
    steps: int = 0
    dream_temperature: float = 1.0
    starts: int = 256
    train: tuple[StageName, ...] = ("vision", "memory", "controller")

    def __post_init__(self) -> None:
        for name in ("latents", "frames", "hidden", "mixtures", "rollouts", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive")
        if not self.widths or len(self.widths) != len(self.kernels) or min(*self.widths, *self.kernels) < 1:
            raise ValueError("widths and kernels are positive, one of each for every layer")
        if self.population < 4:
            raise ValueError("a population has at least 4 controllers")
        for name in ("error_weight", "free_bits", "reward_weight", "end_weight", "steps", "dream_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not 0 < self.sigma < float("inf"):
            raise ValueError("sigma must be positive")
        if not self.train or len(set(self.train)) < len(self.train):
            raise ValueError("train names at least one stage, each once")
        if self.practice == "dream" and "controller" in self.train and not (self.rewards or self.ends):
            raise ValueError("practice in dreams needs rewards or ends to judge them by: set rewards=true or ends=true")

    @property
    def told(self) -> int:
        """Numbers that the controller is told."""
        return self.latents + self.hidden * self.controller.count("+")


@dataclass(frozen=True)
class WorldSampling(Sampling):
    """How a world model dreams.

    Attributes:
        temperature: tau: mixture weights to the power 1 / tau, noise times its root; 0 takes the likeliest.
        act: who acts: the ``controller``, or one at ``random``, as in the built-in recordings.
        walk: deviation of a step of random actions, which walk in [-1, 1].
    """

    act: Literal["controller", "random"] = "controller"
    walk: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.walk <= 10:
            raise ValueError("walk is 0 to 10")
