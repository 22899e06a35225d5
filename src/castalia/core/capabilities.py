"""What a model can do besides sampling, each declared by deriving from a class here.

One conformance suite holds a model to what it declares.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.core.sampling import Given, Sampling, Watch, check_given, check_redraw, sampling


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of examples, and what kind of number they are.

    Attributes:
        nats: ``float64`` (B,), log-likelihood (or a bound on it) of each example in natural units.
        kind: ``exact``; ``bound`` (in expectation not above the truth); ``estimate``.
        detail: how it was obtained, for example ``importance weighted, K = 5000``.
        preprocessing: what was done to the data first, for example ``dynamic binarisation``.
        values: the natural values, least first, over which pictures have a probability, where those are not all 256. It
            is what baselines must be measured over as well: among fewer values each is likelier.
        error: numerical error of one of them in nats, as far as it was looked for: of the solver of an equation.
    """

    nats: Tensor
    kind: Literal["exact", "bound", "estimate"]
    detail: str
    preprocessing: str
    values: tuple[int, ...] | None = None
    error: float = 0.0


class Density(ABC):
    """A model that can say how likely an example is.

    Attributes:
        label_optional: whether it also says so of examples whose label is left out, as of anybody's: it was taught to,
            by leaving labels out. What the label is worth can then be measured.
    """

    label_optional: ClassVar[bool] = False

    @abstractmethod
    def log_likelihood(self, batch: Batch, *, rng: SampleRng, samples: int = 1) -> Likelihood:
        """Log-likelihood of examples in natural units, given what stands beside them where the model is conditional.

        Args:
            batch: examples (B, ...).
            rng: one stream per example.
            samples: importance samples per example, for models with a bound; others ignore it.
        """


class Latents(ABC):
    """A model that makes each example from a latent vector whose prior is a standard normal.

    Attributes:
        latent_dims: length of the vector.
    """

    latent_dims: int

    @abstractmethod
    def decode(self, z: Tensor, given: Given | None = None, *, rng: SampleRng | None = None) -> Batch:
        """Examples in natural units from latents (B, latent_dims).

        Args:
            z: latents ``float32``.
            given: as in :meth:`Generator.sample`; what is missing is as if it were unknown where the model knows that,
                else the most frequent.
            rng: draws what the latents leave open; None gives the expected example.
        """


class Styled(Latents):
    """A model whose latent vector becomes one style for each layer, and the styles become a picture.

    Styles may be asked for, mixed and searched apart from any latent vector: what StyleGAN calls W+.

    Attributes:
        style_layers: how many styles a picture has.
        style_dims: length of each.
        noise_sizes: height and width of the noise maps that are added on the way; empty where there are none.
    """

    style_layers: int
    style_dims: int
    noise_sizes: Sequence[tuple[int, int]]

    @abstractmethod
    def styles(self, z: Tensor, given: Given | None = None) -> Tensor:
        """Styles ``float32`` (B, style_layers, style_dims) of latents (B, latent_dims); given as in :meth:`decode`."""

    @abstractmethod
    def render(self, styles: Tensor, *, rng: SampleRng | None = None, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Pictures ``float32`` (B, C, H, W) in natural units, 0 to 255, neither rounded nor cut off.

        ``decode(z)`` is its rounded, cut off result for ``styles(z)``. Gradients flow through it.

        Args:
            styles: (B, style_layers, style_dims).
            rng: as in :meth:`decode`.
            noise: the noise itself, ``float32`` (B or 1, 1, h, w) for each of :attr:`noise_sizes`, in place of ``rng``.
        """


@dataclass(frozen=True)
class Meshes:
    """Textured meshes that share their triangles.

    Attributes:
        vertices: ``float32`` (B, V, 3): x, y (up), z, towards whoever looks from the front.
        faces: ``int64`` (F, 3), anticlockwise from outside.
        places: ``float32`` (F, 3, 2): u (along the width) and v (down the height) in the texture of each corner of each
            triangle. u may exceed 1: the texture goes round.
        texture: ``uint8`` (B, C, h, w), C 1 or 3.
    """

    vertices: Tensor
    faces: Tensor
    places: Tensor
    texture: Tensor

    def __len__(self) -> int:
        return len(self.vertices)

    def __getitem__(self, rows: slice | Tensor) -> Meshes:
        """Some of them."""
        return replace(self, vertices=self.vertices[rows], texture=self.texture[rows])


class Meshing(Latents):
    """A model of pictures that knows the thing in a picture as a textured mesh."""

    @abstractmethod
    def mesh(self, z: Tensor) -> Meshes:
        """The things of latents ``float32`` (B, latent_dims)."""

    @abstractmethod
    def look(self, meshes: Meshes, azimuth: Tensor) -> Tensor:
        """Pictures of meshes in natural units, from degrees (B,) around them: 0 is from the front, 90 from x."""


class Perception(ABC):
    """A model with networks that look at pictures: a critic, an encoder."""

    @abstractmethod
    def perceive(self) -> Mapping[str, nn.Module]:
        """Those networks by name, each called with pictures ``float32`` (B, C, H, W) in natural units, 0 to 255.

        Gradients flow through them. What they return is theirs; it is mostly their inner layers that people ask for.
        """


class Matching(ABC):
    """A model that tells how well pictures and words belong together: by the product of unit vectors of both."""

    @abstractmethod
    def of_pictures(self, x: Tensor) -> Tensor:
        """Unit vectors ``float32`` (B, d) of pictures ``uint8`` or ``float32`` (B, C, H, W), 0 to 255."""

    @abstractmethod
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors ``float32`` (B, d) of texts."""


class Inference(Latents):
    """A model that also finds the latents of an example."""

    @abstractmethod
    def encode(self, batch: Batch, *, rng: SampleRng | None = None) -> Tensor:
        """Latents ``float32`` (B, latent_dims) of examples; the mean, or a posterior draw where ``rng`` is given."""

    @abstractmethod
    def posterior_kl(self, batch: Batch) -> Tensor:
        """KL to the prior per latent dimension, nats, ``float32`` (B, latent_dims).

        Infinite throughout where an example has one latent vector and no other.
        """


class Searchable(Latents):
    """A model without an encoder, for whose examples latents can be searched, step by step."""

    @abstractmethod
    def search(self, batch: Batch, *, rng: SampleRng | None = None, steps: int = 200) -> Tensor:
        """Latents ``float32`` (B, latent_dims) whose decoded examples come near to those of ``batch``.

        What is found for an example does not depend on the others.

        Args:
            batch: examples in natural units.
            rng: draws where the search begins; None begins at the middle of the prior.
            steps: of the search, at least 1.
        """


class Refinement(ABC):
    """A model that can redraw given examples, wholly (image-to-image) or in part (inpainting)."""

    spec: Any

    @final
    @torch.no_grad()
    def refine(
        self,
        batch: Batch,
        *,
        strength: float = 1.0,
        mask: Tensor | None = None,
        given: Given | None = None,
        rng: SampleRng,
        options: Sampling | None = None,
        watch: Watch | None = None,
    ) -> Batch:
        """Examples like those of ``batch``, in natural units, same shape.

        Args:
            batch: examples (B, ...) in natural units.
            strength: 0 returns them as they are; 1 keeps nothing of what is redrawn. The steps asked for are the steps
                run, whatever the strength.
            mask: ``bool`` (B or 1, 1, H, W), True where to redraw; everything else comes back bit for bit. None
                redraws everything.
            given: as in :meth:`Generator.sample`.
            rng: one stream per example.
            options: as in :meth:`Generator.sample`.
            watch: as in :meth:`Generator.sample`.

        Raises:
            UsageError: examples of another shape, a strength outside [0, 1], a mask that does not fit, or what
                :meth:`Generator.sample` refuses.
        """
        check_redraw(batch.x, strength, mask, self.spec.fields()["x"].shape)
        checked, chosen = check_given(self, given, len(batch)), sampling(self, options)
        if strength == 0:
            return replace(batch, x=batch.x.clone())
        x = self.redraw(batch, strength, mask, checked, rng, chosen, watch)
        x = x if mask is None else torch.where(mask.to(x.device), x, batch.x.to(x.device))
        return replace(batch, x=x)

    @abstractmethod
    def redraw(
        self,
        batch: Batch,
        strength: float,
        mask: Tensor | None,
        given: Given,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """The ``x`` of what :meth:`refine` returns; everything has been checked, strength is above 0.

        What lies outside the mask is put back afterwards; a model may, and mostly must, hold it on its way as well.
        """


class Upscaling(ABC):
    """A model of pictures that makes given ones larger, and draws the detail that they lack.

    Attributes:
        times: how many times larger each side becomes.
    """

    spec: Any
    times: int

    @final
    @torch.no_grad()
    def upscale(
        self,
        x: Tensor,
        *,
        given: Given | None = None,
        rng: SampleRng,
        options: Sampling | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Larger pictures, ``uint8`` (B, C, times h, times w).

        Args:
            x: pictures ``uint8`` (B, C, h, w) with the channels of the data, of any sides.
            given: as in :meth:`Generator.sample`.
            rng: one stream per picture.
            options: as in :meth:`Generator.sample`.
            watch: as in :meth:`Generator.sample`.

        Raises:
            UsageError: pictures of other channels or of no area, or what :meth:`Generator.sample` refuses.
        """
        channels = self.spec.channels
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != channels or not x.numel():
            raise UsageError(
                f"Upscaling takes pictures of {channels} channels, uint8 (B, {channels}, h, w), "
                f"not {x.dtype} {tuple(x.shape)}."
            )
        checked, chosen = check_given(self, given, len(x)), sampling(self, options)
        return self.enlarge(x, checked, rng, chosen, watch)

    @abstractmethod
    def enlarge(self, x: Tensor, given: Given, rng: SampleRng, options: Any, watch: Watch | None) -> Tensor:
        """What :meth:`upscale` returns; everything has been checked."""


class Reversible(ABC):
    """A model whose sampling can be run backwards, so that an example comes back, or comes back as something else."""

    spec: Any

    @final
    @torch.no_grad()
    def recast(
        self,
        batch: Batch,
        *,
        was: Given | None = None,
        given: Given | None = None,
        strength: float = 1.0,
        rng: SampleRng,
        options: Sampling | None = None,
        watch: Watch | None = None,
    ) -> Batch:
        """Examples drawn from the noise that those of ``batch`` come from.

        Args:
            batch: examples (B, ...) in natural units.
            was: what they are taken for on the way back to noise; as in :meth:`Generator.sample`, but without guidance.
            given: what they are drawn as; with what they were, they come back, but for the errors of the solver.
            strength: how far back, above 0; 1 is to the noise that sampling starts with.
            rng: one stream per example, for what has to be drawn all the same.
            options: as in :meth:`Generator.sample`; the sampler is Euler's.
            watch: told of every step forwards.

        Raises:
            UsageError: examples of another shape, a strength that is none, or what :meth:`Generator.sample` refuses.
        """
        check_redraw(batch.x, strength, None, self.spec.fields()["x"].shape)
        if strength <= 0:
            raise UsageError("strength says how far back to go, above 0 and up to 1.")
        before, after = check_given(self, was, len(batch)), check_given(self, given, len(batch))
        x = self.draw_again(batch, before, after, strength, rng, sampling(self, options), watch)
        return replace(batch, x=x)

    @abstractmethod
    def draw_again(
        self,
        batch: Batch,
        was: Given,
        given: Given,
        strength: float,
        rng: SampleRng,
        options: Any,
        watch: Watch | None,
    ) -> Tensor:
        """The ``x`` of what :meth:`recast` returns; everything has been checked."""


class Streaming(ABC):
    """A model that makes its examples piece by piece: tokens, samples of sound, rows of a picture.

    ``draw`` and this are one sampler: the pieces of a stream, one behind the other, are the example.

    Attributes:
        along: the dimension of ``x`` along which the pieces follow one another; -1 is the last.
    """

    along: ClassVar[int] = -1

    @abstractmethod
    def start(self, n: int, given: Given, rng: SampleRng, options: Any) -> Any:
        """The state of ``n`` streams before their first piece; what is given as their beginning has been taken in."""

    @abstractmethod
    def advance(self, state: Any) -> tuple[Tensor, Any]:
        """The next piece of each stream (n, ...), natural units, and the state after it.

        Raises:
            StopIteration: all streams have ended.
        """

    @abstractmethod
    def naive(self, n: int, given: Given, rng: SampleRng, options: Any) -> Batch:
        """What ``draw`` returns, computed anew from the beginning for every piece: slow, and easy to believe."""


@dataclass(frozen=True)
class PictureProgram:
    """A few lines of Python that make a picture of exported calls, with NumPy alone.

    Attributes:
        lines: they call ``run(call, *inputs)``, which returns the first output, read ``numbers`` and, where there are
            classes, the number ``label``, and leave in ``y`` a picture (C, H, W) of 0 to 255.
        numbers: what JSON can hold and the lines need.
    """

    lines: str
    numbers: Any = None


class Exportable(ABC):
    """A model whose network calls can run outside Castalia."""

    @abstractmethod
    def export_calls(self) -> Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """Return, by name, a module of one network call and example inputs (first dimension is the batch)."""

    def export_picture(self) -> PictureProgram | None:
        """How a picture is made of these calls; None where no few lines do, or nothing of a picture is made."""
        return None
