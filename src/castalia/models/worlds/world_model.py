"""World model: a network that dreams an environment, and a small controller that learns in it, or in its dreams.

Paper
    Ha & Schmidhuber 2018, "World Models" (arXiv:1803.10122) and "Recurrent World Models Facilitate Policy Evolution"
    (NeurIPS). Mixture density networks: Bishop 1994; CMA-ES: Hansen 2016 (``cma.py``).

Equations
    Vision:      frame -> z ~ N(mu, sigma^2); loss |frame - decoded|^2 + max(KL, free_bits z).
    Memory:      h_t = LSTM(z_t, a_t, h_t-1);  p(z_t+1 | h_t) = product over latents of sum_k pi_k N(mu_k, sigma_k^2).
    Controller:  a_t = tanh(W [z_t, h_t-1] + b), evolved by CMA-ES for the mean reward of episodes.
    Dreams:      z_t+1 drawn with weights pi^(1 / tau) and noise times sqrt(tau).

What differs, and why
    A step of vision sees a few frames of each of several stretches, as many as the paper's batch.
    Memory is trained on stretches, not on whole episodes; each begins with an empty state, as dreams do.
    The controller sees the mean of z, which draws no numbers; the paper draws z.
    Rewards, where they are predicted, have a squared error of their own. An end counts in a dream by its probability,
    where the paper cuts off at one half; Doom's input that says when an episode began anew is left out.
    Frames are not inverted.
    Within a generation all controllers get the same episodes, so that luck is shared.

Expected: see ``recipes/world_model.py`` and the system's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.data import Batch, Dataset, some_of
from castalia.core.encoded import Encoded
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Generator, Logs, Model, Objective, Progress, Stage, Update
from castalia.core.rng import Rng, SampleRng
from castalia.core.sampling import Given, Sampling, Watch
from castalia.core.spec import Spec
from castalia.core.specs.episode import START, EpisodeSpec
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.environments.base import ENVIRONMENTS, squashed
from castalia.models.autoencoders.vae import gaussian_kl
from castalia.models.worlds.cma import CMA
from castalia.models.worlds.networks import Controller, Memory, Starts, State, Vision
from castalia.models.worlds.playing import in_dream, in_world
from castalia.models.worlds.settings import WorldModelConfig, WorldSampling

FRAMES_AT_ONCE = 1024
"""Encoded or decoded."""
SHARES = {"vision": 0.5, "memory": 0.4, "controller": 0.1}
WORLD = "world"
"""Role of a parent run whose vision and memory are taken."""


class WorldModel(Generator[WorldModelConfig, EpisodeSpec]):
    """Vision, memory and controller."""

    Config = WorldModelConfig
    SampleOptions: ClassVar[type[Sampling]] = WorldSampling

    def __init__(self, config: WorldModelConfig, spec: EpisodeSpec) -> None:
        super().__init__()
        self.config, self.spec, c = config, spec, config
        if spec.height != spec.width:
            raise UsageError(f"Frames must be square, not {spec.height}x{spec.width}; set data.options.size.")
        actions = len(spec.actions)
        known = ENVIRONMENTS.get(spec.environment)
        if known is not None and len(known.actions) != actions:
            raise UsageError(f"{spec.environment} takes {len(known.actions)} numbers as an action, not {actions}.")
        self.vision = Vision(spec.channels, spec.height, c.widths, c.kernels, c.latents)
        self.memory = Memory(c.latents, actions, c.hidden, c.mixtures, c.rewards, c.ends)
        self.controller = Controller(c.told, actions, c.bias)
        self.starts = Starts(c.starts, c.latents)
        self.search = CMA(self.controller.size, c.population, c.sigma, c.covariance)

    def initialise(self, data: Dataset, rng: Rng, parents: Mapping[str, Model]) -> None:
        """Let frames be grey as the data are; or take vision, memory and starts from the run in the role ``world``."""
        parent = parents.get(WORLD)
        if parent is None:
            mean = data.batch(some_of(data, 64)).x.float().mean((0, 1, 3, 4)) / 255
            last = self.vision.decoder[-1]
            assert isinstance(last, nn.ConvTranspose2d)
            assert last.bias is not None
            with torch.no_grad():
                last.bias.copy_(torch.logit(mean.clamp(0.02, 0.98)))
            return
        if not isinstance(parent, WorldModel):
            raise UsageError(f"The parent run {WORLD!r} is no world model.")
        for own, other in ((self.vision, parent.vision), (self.memory, parent.memory), (self.starts, parent.starts)):
            try:
                own.load_state_dict(other.state_dict())
            except RuntimeError as error:
                raise RunError(
                    f"The {type(own).__name__.lower()} of the parent run {WORLD!r} does not fit: it needs the same "
                    f"latents, widths, kernels, hidden, mixtures, rewards, ends, starts and actions. {str(error)[:300]}"
                ) from error

    # the objectives

    def stages(self) -> tuple[Stage, ...]:
        known = {
            "vision": Stage("vision", (Objective("vision", self.vision, self.vision_loss),)),
            "memory": Stage(
                "memory",
                (
                    Objective("memory", self.memory, self.memory_loss),
                    Update("starts", self.starts, self.keep, apart=(self.starts.mean, self.starts.std)),
                ),
                data=self.coded,
            ),
            "controller": Stage(
                "controller", (Update("evolve", nn.ModuleList([self.controller, self.search]), self.evolve),)
            ),
        }
        return tuple(
            Stage(s.name, s.objectives, share=SHARES[s.name], data=s.data)
            for s in known.values()
            if s.name in self.config.train
        )

    def vision_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Squared error and KL of some frames of each stretch, nats per frame."""
        k = self.config.frames
        alive = (batch.extra["dones"] == 0).sum(1).clamp(min=1, max=self.spec.length - 1) + 1
        which = (rng.uniform("frames", k) * alive[:, None]).long()
        x = batch.x.gather(1, which[:, :, None, None, None].expand(-1, -1, *batch.x.shape[2:])).flatten(0, 1)
        y, mean, std = self.vision(x, rng.normal("latent", k, self.config.latents).flatten(0, 1))
        error = (y - x.float() / 255).square().flatten(1).sum(1)
        kl = gaussian_kl(mean, std).sum(1)
        loss = (self.config.error_weight * error + kl.clamp(min=self.config.free_bits * self.config.latents)).mean()
        return loss, {"error": error.mean().detach(), "kl": kl.mean().detach()}

    def coded(self, data: Dataset) -> Dataset:
        """The stretches with means and deviations of latents in place of frames: ``float32`` (T, 2 z)."""

        def call(batch: Batch) -> Batch:
            extra = {name: batch.extra[name] for name in ("actions", "rewards", "dones")}
            return Batch(torch.cat(self.seen(batch.x), -1), batch.ids, None, extra)

        rows = max(1, min(256, (1 << 28) // (self.spec.length * int(np.prod(self.spec.frame)))))
        return Encoded(data, call, PointsSpec(2 * self.config.latents), self.device, rows=rows)

    def memory_loss(self, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
        """Nats per latent of the next frame; with rewards and ends, those beside."""
        c, dones = self.config, batch.extra["dones"].float()
        mean, std = batch.x.chunk(2, -1)
        z = mean + std * rng.normal("latent", self.spec.length, c.latents)
        h, _ = self.memory(z, batch.extra["actions"])
        after = self.memory.outlook(h)
        before = torch.cat([torch.zeros_like(dones[:, :1]), dones[:, :-1]], 1)
        # a step counts while the episode is not over before it, and a next frame while it is not over after it
        there, goes_on = 1 - before, (1 - dones)[:, :-1]
        total = (there.sum() * rng.share).clamp(min=1) / rng.share
        every = (goes_on.sum() * rng.share).clamp(min=1) / rng.share
        nats = type(after)(after.log_weights[:, :-1], after.mean[:, :-1], after.log_std[:, :-1], None, None).nats(
            z[:, 1:]
        )
        loss = (nats.mean(-1) * goes_on).sum() / every
        logs = {"nats_per_latent": loss.detach()}
        if after.reward is not None:
            error = ((after.reward - batch.extra["rewards"]).square() * there).sum() / total
            loss, logs = loss + c.reward_weight * error, {**logs, "reward_error": error.detach()}
        if after.end is not None:
            ends = F.binary_cross_entropy_with_logits(after.end, dones, reduction="none")
            ends = (ends * there).sum() / total
            loss, logs = loss + c.end_weight * ends, {**logs, "end_nats": ends.detach()}
        return loss, logs

    def keep(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """Remember how stretches begin, the last of them in turn."""
        room, total = self.config.starts, round(rng.rows / rng.share)
        number = rng.start + torch.arange(rng.rows, device=batch.x.device)
        rows = number < room  # of more than fit the first are kept
        places = (progress.step * min(total, room) + number[rows]) % room
        mean, std = batch.x[rows, 0].chunk(2, -1)
        self.starts.mean[places], self.starts.std[places] = mean.float(), std.float()
        self.starts.filled.fill_(min((progress.step + 1) * min(total, room), room))
        return {}

    def evolve(self, batch: Batch, rng: Rng, progress: Progress) -> Logs:
        """One generation of controllers; the controller becomes the middle of the population."""
        c = self.config
        x = self.search.ask(rng.shared(c.population).normal("candidates", self.search.size))
        if c.practice == "dream":
            shared = rng.shared(c.rollouts).at("dream")
            won = in_dream(self, x, shared, c.rollouts, c.steps or self.spec.length, c.dream_temperature)
        else:
            seeds = rng.shared(c.rollouts).integers("worlds", 1 << 31).tolist()
            won = in_world(self, x, seeds, c.steps).mean(1)
        fitness = torch.from_numpy(won).to(x.device)
        self.search.tell(x, fitness)
        self.controller.take(self.search.mean)
        return {"fitness": fitness.mean(), "best": fitness.max(), "sigma": self.search.sigma}

    # what it sees, remembers and does

    def seen(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Means and deviations of latents (..., z) of frames ``uint8`` (..., C, H, W)."""
        flat = frames.flatten(0, -4)
        parts = [self.vision.posterior(part) for part in flat.split(FRAMES_AT_ONCE)]
        return tuple(torch.cat(p).unflatten(0, frames.shape[:-3]) for p in zip(*parts, strict=True))  # type: ignore[return-value]

    def shown(self, z: Tensor) -> Tensor:
        """Frames ``uint8`` (..., C, H, W) of latents (..., z)."""
        parts = [self.vision.shown(part) for part in z.flatten(0, -2).split(FRAMES_AT_ONCE)]
        frames = (torch.cat(parts) * 255).round().clamp(0, 255).to(torch.uint8)
        return frames.unflatten(0, z.shape[:-1])

    def told(self, z: Tensor, state: State) -> Tensor:
        """What the controller is told (n, inputs)."""
        return torch.cat([z, *state[: self.config.controller.count("+")]], -1)

    def in_range(self, unit: Tensor) -> Tensor:
        """Numbers (..., A) in [-1, 1] as actions of the data's ranges."""
        known = ENVIRONMENTS.get(self.spec.environment)
        if known is not None:
            return squashed(unit, known.squash)
        low, high = (torch.tensor(v, dtype=unit.dtype, device=unit.device) for v in (self.spec.low, self.spec.high))
        return low + (unit + 1) / 2 * (high - low)

    def begun(self, rng: Rng) -> Tensor:
        """Latents (rows, z) of frames with which dreams begin."""
        which = rng.integers("start", max(int(self.starts.filled), 1))
        return self.starts.mean[which] + self.starts.std[which] * rng.normal("start", self.config.latents)

    def score(self, seeds: list[int], steps: int = 0) -> np.ndarray:
        """Sums of rewards ``float64`` (N,) of the controller in the environment, one episode for each seed."""
        return in_world(self, None, seeds, steps)[0]

    # what it can do

    def accepts(self) -> Mapping[str, Spec]:
        """``start``: the first frame of a dream."""
        return {START: ImageSpec(*self.spec.frame)}

    def draw(self, n: int, given: Given, rng: SampleRng, options: WorldSampling, watch: Watch | None) -> Batch:
        """Dreams, from beginnings that training saw or from given frames."""
        length, c = self.spec.length, self.config
        z = self.seen(given[START])[0] if START in given else self.begun(rng)
        uniform, noise = rng.uniform("which", length, c.latents), rng.normal("noise", length, c.latents)
        walk = rng.normal("walk", length, len(self.spec.actions)) if options.act == "random" else None
        place = 2 * rng.uniform("act", len(self.spec.actions)) - 1
        state, over = self.memory.begin(n), torch.zeros(n, dtype=torch.bool, device=self.device)
        kept: dict[str, list[Tensor]] = {"z": [], "actions": [], "rewards": [], "dones": []}
        for t in range(length):
            if walk is None:
                unit = self.controller.acts(self.told(z, state))
            else:
                unit, place = place, (place + options.walk * walk[:, t]).clamp(-1, 1)
            actions = torch.where(over[:, None], 0, self.in_range(unit.float()))
            h, state = self.memory(z[:, None], actions[:, None], state)
            after = self.memory.outlook(h[:, 0])
            zero = torch.zeros(n, device=self.device)
            reward = zero if after.reward is None else after.reward
            now = over
            if after.end is not None:
                now = over | (rng.at("end", t).uniform("end") < torch.sigmoid(after.end))
            for name, value in (
                ("z", z),
                ("actions", actions),
                ("rewards", torch.where(over, zero, reward)),
                ("dones", now),
            ):
                kept[name].append(value)
            z = torch.where(now[:, None], z, after.drawn(uniform[:, t], noise[:, t], options.temperature))
            over = now
        x = self.shown(torch.stack(kept["z"], 1))
        if START in given:
            x[:, 0] = given[START]
        extra = {name: torch.stack(kept[name], 1).float() for name in ("actions", "rewards")}
        low, high = min(self.spec.low), max(self.spec.high)
        extra["actions"] = extra["actions"].clamp(low, high)
        extra["dones"] = torch.stack(kept["dones"], 1).to(torch.uint8)
        return Batch.of(x, None, {**extra, START: x[:, 0].clone()})

    @torch.no_grad()
    def reconstructed(self, frames: Tensor) -> Tensor:
        """Frames ``uint8`` (..., C, H, W) seen and shown again."""
        return self.shown(self.seen(frames)[0])

    @torch.no_grad()
    def imagined(self, batch: Batch, context: int, *, rng: SampleRng, temperature: float = 1.0) -> Tensor:
        """What would be seen next, given the first frames and all actions of real stretches.

        Args:
            batch: stretches (B, T, ...).
            context: frames that are seen, at least 1; what follows is dreamt, with the actions that were done.
            rng: of the dreams.
            temperature: of the dreams.

        Returns:
            ``uint8`` (B, T - context, C, H, W).
        """
        actions = batch.extra["actions"].to(self.device)
        seen = self.seen(batch.x[:, :context])[0]
        h, state = self.memory(seen, actions[:, :context])
        h, kept = h[:, -1], []
        for t in range(context, batch.x.shape[1]):
            r = rng.at("imagine", t)
            uniform, noise = r.uniform("which", self.config.latents), r.normal("noise", self.config.latents)
            z = self.memory.outlook(h).drawn(uniform, noise, temperature)
            kept.append(z)
            h, state = self.memory(z[:, None], actions[:, t : t + 1], state)
            h = h[:, 0]
        return self.shown(torch.stack(kept, 1))

    @torch.no_grad()
    def foreseen(self, batch: Batch) -> Tensor:
        """Nats per latent of each stretch (B,), ``float64``: the next means given the true ones before."""
        mean = self.seen(batch.x)[0]
        h, _ = self.memory(mean, batch.extra["actions"].to(self.device))
        after = self.memory.outlook(h[:, :-1])
        goes_on = (batch.extra["dones"][:, :-1] == 0).to(self.device).double()
        nats = after.nats(mean[:, 1:]).mean(-1).double()
        return (nats * goes_on).sum(1) / goes_on.sum(1).clamp(min=1)
