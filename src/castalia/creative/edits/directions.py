"""Directions that matter, found without labels, and pictures along them.

Shen & Zhou 2021 (arXiv:2007.06600), closed form: the directions in which a style changes the layers that take it most
are the first eigenvectors of A'A, A being the weights of those layers. Härkönen et al. 2020 (arXiv:2004.02546):
principal components of styles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from castalia.creative.edit import Edit, Grid, Work, option

if TYPE_CHECKING:
    from torch import Tensor

MANY = 4096
"""Latents whose styles are looked at."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which directions, and how far."""

    how: Literal["components", "weights"] = option(
        "components", "principal components of styles, or what the layers' weights let through most"
    )
    count: int = option(6, "directions, the strongest first (6)", least=1)
    span: float = option(2.0, "from -span to span, in deviations of styles along the direction (2)")
    frames: int = option(7, "how many steps (7)", least=2)
    psi: float = option(0.7, "distance of the picture from the mean style (0.7)")
    seed: int = option(0, "another picture")


def run(work: Work, options: Options) -> Grid:
    """Render one picture with its style moved along each direction: a row for each."""
    import torch

    from castalia.core.data import Batch
    from castalia.core.rng import BatchRng

    model: Any = work.model
    z = BatchRng(0, total=MANY).normal("mean style", model.latent_dims).to(model.device)
    many = model.styles(z)[:, 0]
    found = (components(many) if options.how == "components" else weights(model))[: options.count]
    reach = ((many - many.mean(0)) @ found.T).std(0)
    own = model.styles(work.rng(options.seed, range(1)).normal("latent", model.latent_dims))[:, 0]
    start = many.mean(0) + options.psi * (own - many.mean(0))
    along = torch.linspace(-options.span, options.span, options.frames, device=start.device)
    places = start + (along[None, :, None] * reach[:, None, None]) * found[:, None]
    styles = places.flatten(0, 1).unsqueeze(1).expand(-1, model.style_layers, -1)
    x = torch.cat([model.render(part) for part in styles.split(work.at_once)])
    return Grid(Batch.of(x.round().clamp(0, 255).to(torch.uint8).cpu()), columns=options.frames)


def components(styles: Tensor) -> Tensor:
    """Unit vectors (w, w) along which styles (N, w) vary, the strongest first."""
    import torch

    centred = (styles - styles.mean(0)).double()
    return torch.linalg.eigh(centred.T @ centred).eigenvectors.T.flip(0).to(styles.dtype)


def weights(model: Any) -> Tensor:
    """Unit vectors (w, w) that all layers which take a style let through, the strongest first.

    Raises:
        UsageError: the model has no such layers.
    """
    import torch

    from castalia.core.errors import UsageError

    taking = [p for name, p in model.named_parameters() if name.endswith("affine.weight")]
    if not taking:
        raise UsageError("This model's styles pass through no layers that are known; take --how components.")
    a = torch.cat([p.detach().double() for p in taking])
    return torch.linalg.eigh(a.T @ a).eigenvectors.T.flip(0).float()


EDIT = Edit(
    "directions",
    "Move a picture along the directions in which styles matter most.",
    "FILE.png: a row for each direction",
    Options,
    run,
    needs=("Styled",),
    media=("image",),
)
