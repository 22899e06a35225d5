"""From sampling options and random streams to examples: what both systems of the family share.

Sampling starts from noise; redrawing (SDEdit, Meng et al. 2022, arXiv:2108.01073) from a given example with noise
added. Whatever the strength, all of the steps asked for are run: the grid is laid between the level that the strength
means and 0. To redraw a part only, the denoised example is replaced by the given one everywhere else. The state then
follows the forward process there by itself, with whichever sampler, so that the part can fit its surroundings; and at
the end everything outside the part is copied from the given example, bit for bit. Each step sees its surroundings only
through the noise of its level, though, and what was decided at high levels is not taken back. RePaint (Lugmayr et al.
2022, arXiv:2201.09865) therefore does each step several times, with noise added in between; so does ``resample``.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.sampling import Preview, Sampling, Watch
from castalia.models.diffusion.guidance import Guidance, guided
from castalia.models.diffusion.networks import Network
from castalia.models.diffusion.samplers import SAMPLERS, Denoise, Noise, Sampler
from castalia.nn.units import Units

EMBEDDED_AT_ONCE = 2_048
"""Pairs of time and label whose embeddings are computed together before a sampling begins."""

Scalings = Callable[[float], tuple[float, float, float, float]]
"""sigma -> (skip, out, in, time): denoised = skip * x + out * network(in * x, time)."""


@dataclass(frozen=True)
class DrawingOptions(Sampling, ABC):
    """What the sampling options of both systems have in common.

    Attributes:
        sampler: its name, see samplers.py.
        steps: steps of the sampler; the evaluations of the network are as many, but see samplers.py for ``heun``,
            ``edm`` and ``dpm++3m``.
        grid: where the noise levels of the steps lie, see schedules.py.
        eta: share of fresh noise of ``ddim`` (0 where not given), ``euler-ancestral`` and ``dpm++2m-sde`` (1).
        guidance: scale of classifier-free guidance; 1 is the plain conditional model.
        guidance_low: no guidance at this noise level and below.
        guidance_high: no guidance above this noise level; None is no limit.
        guidance_rescale: share of the correction of contrast, 0 to 1.
        resample: redrawing with a mask: how often each step is done; the sampler then starts anew at every step.
    """

    sampler: str = "dpm++2m"
    steps: int = 25
    grid: str = "logistic"
    eta: float | None = None
    guidance: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float | None = None
    guidance_rescale: float = 0.0
    resample: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.resample) < 1:
            raise ValueError("steps and resample must be at least 1")
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise ValueError("eta lies between 0 and 1")
        self.how_guided()

    def how_guided(self) -> Guidance:
        """The options of guidance together."""
        high = math.inf if self.guidance_high is None else self.guidance_high
        return Guidance(self.guidance, self.guidance_low, high, self.guidance_rescale)

    @property
    def method(self) -> str | Sampler:
        """The chosen sampler: its name in samplers.py, or itself."""
        return self.sampler

    def own(self) -> dict[str, Any]:
        """The options that the chosen sampler takes."""
        takes_eta = self.sampler in ("ddim", "euler-ancestral", "dpm++2m-sde")
        return {"eta": self.eta} if takes_eta and self.eta is not None else {}


class Denoiser:
    """A network as a denoise function of one batch: ``denoiser(x, sigma, label)``.

    The embeddings of time and label do not depend on x. They are computed once for each noise level and each label that
    occurs, for the whole schedule together where that is not too much. With ``units``, denoised examples are settled.
    ``mean`` is that of the data, about which the scalings work.

    Attributes:
        fraction: what the network said about the variance at the last call (B, ...), where it says that.
    """

    def __init__(
        self,
        network: Network,
        scalings: Scalings,
        *,
        label: Tensor | None,
        units: Units | None,
        split: bool = False,
        mean: float = 0.0,
    ) -> None:
        self.network, self.scalings, self.units, self.split, self.mean = network, scalings, units, split, mean
        self.known = None if label is None else label.unique()
        self.embeddings: dict[float, Tensor] = {}
        self.fraction: Tensor | None = None

    def prepare(self, sigmas: Sequence[float]) -> None:
        """Compute the embeddings of a schedule."""
        times = list({self.scalings(sigma)[3]: None for sigma in sigmas if sigma})
        rows = 1 if self.known is None else len(self.known)
        if len(times) * rows <= EMBEDDED_AT_ONCE:
            self.embeddings.update(zip(times, self._embed(times), strict=True))

    def _embed(self, times: Sequence[float]) -> Tensor:
        """Embeddings (times, labels or 1, ...)."""
        device = next(self.network.parameters()).device
        rows = 1 if self.known is None else len(self.known)
        time = torch.tensor(times, dtype=torch.float32, device=device).repeat_interleave(rows)
        label = None if self.known is None else self.known.repeat(len(times))
        return self.network.embed(time, label).unflatten(0, (len(times), rows))

    def __call__(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return self.settle(self.unsettled(x, sigma, label), sigma)

    def settle(self, denoised: Tensor, sigma: float) -> Tensor:
        """Denoised examples as far as the medium allows them, where there are ``units``."""
        return denoised if self.units is None else self.units.settle(denoised, sigma)

    def unsettled(self, x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """Denoised examples as the network has them."""
        skip, out, inner, time = self.scalings(sigma)
        if time not in self.embeddings:
            self.embeddings[time] = self._embed([time])[0]
        embedding = self.embeddings[time]
        if self.known is not None:
            assert label is not None
            embedding = embedding[torch.searchsorted(self.known, label)]
        if self.mean:
            x = x - self.mean
        output = self.ask((x * inner).float(), embedding).to(x.dtype)
        if self.split:
            output, raw = output.chunk(2, dim=1)
            self.fraction = (raw + 1) / 2
        denoised = torch.add(x if skip == 1 else x * skip, output, alpha=out)
        return denoised.add_(self.mean) if self.mean else denoised

    def ask(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The network's output for scaled examples ``float32`` (B, ...)."""
        return self.network.forward_embedded(x, embedding)

    def for_labels(self, label: Tensor | None, null: int, options: DrawingOptions) -> Denoise:
        """The denoise function of examples with these labels, ``int64`` (B,), guided as the options say.

        Raises:
            UsageError: guidance without labels.
        """
        guidance = options.how_guided()
        if label is None:
            if guidance.scale != 1:
                raise UsageError(
                    "Guidance needs a conditional model: this one was trained without labels. Leave guidance at 1."
                )
            return lambda x, sigma: self(x, sigma)
        return guided(self.unsettled, label, null, guidance, self.settle)


@dataclass(frozen=True)
class Job:
    """One sampling: everything but the start.

    Attributes:
        denoise: the model for this batch.
        sigmas: noise levels, 0 at the end.
        sampler: its name in samplers.py, or itself.
        own: its own parameters.
        rng: one stream per example.
        units: of the medium.
        width: deviation of the noise that sampling starts with.
        temperature: multiplies all noise.
        watch: told of every step.
    """

    denoise: Denoise
    sigmas: Sequence[float]
    sampler: str | Sampler
    own: Mapping[str, Any]
    rng: SampleRng
    units: Units
    width: float
    temperature: float = 1.0
    watch: Watch | None = None

    def start(self, z: Tensor) -> Tensor:
        """Sample from standard normal noise z, which ``temperature`` multiplies."""
        return self.run(self.temperature * self.width * z)

    def run(self, x: Tensor, times: int = 1) -> Tensor:
        """Sample from ``x`` at the first level, doing each step ``times`` times; the result is in natural units."""
        return self.units.outward(self.flow(x, times))

    def until(self, sigma: float) -> Job:
        """The same, stopped at a noise level above 0."""
        return replace(self, sigmas=[*(level for level in self.sigmas if level > sigma), sigma])

    def flow(self, x: Tensor, times: int = 1) -> Tensor:
        """The state at the last level, in the model's units; see :meth:`run`."""

        def noise_of(rng: SampleRng) -> Noise:
            def noise(step: int) -> Tensor:
                z = rng.at("step", step).normal("noise", *x.shape[1:])
                return z if self.temperature == 1 else z * self.temperature

            return noise

        def callback(step: int, sigma: float, state: Tensor, denoised: Tensor) -> None:
            if self.watch is not None:
                examples = lambda: Batch.of(self.units.outward(denoised))  # noqa: E731
                self.watch(Preview(step + 1, len(self.sigmas) - 1, examples))

        sampler = SAMPLERS[self.sampler] if isinstance(self.sampler, str) else self.sampler
        if times == 1:
            return sampler(self.denoise, x, self.sigmas, noise=noise_of(self.rng), callback=callback, **self.own)
        for step, (sigma, following) in enumerate(pairwise(self.sigmas)):
            for again in range(times if following else 1):
                noise = noise_of(self.rng.at("again", step, again))
                if again:
                    x = x + math.sqrt(sigma**2 - following**2) * noise(1)
                last = again == times - 1 or not following
                told = (lambda _, *rest, step=step: callback(step, *rest)) if last else None
                x = sampler(self.denoise, x, [sigma, following], noise=noise, callback=told, **self.own)
        return x

    def redraw(self, x: Tensor, mask: Tensor | None, *, fresh: bool, times: int) -> Tensor:
        """Redraw examples ``x`` in natural units, where ``mask`` is True.

        Args:
            x: the given examples.
            mask: broadcasts against them; None is everywhere.
            fresh: start from noise alone, as sampling does.
            times: how often each step is done, with a mask.
        """
        given, high = self.units.inward(x), self.sigmas[0]
        z = self.rng.normal("latent", *x.shape[1:])
        start = self.width * z if fresh else given + high * z
        if mask is None:
            return self.run(start)
        denoise = self.denoise
        painting = replace(self, denoise=lambda state, sigma: torch.where(mask, denoise(state, sigma), given))
        return torch.where(mask, painting.run(torch.where(mask, start, given + high * z), times), x)
