"""What GANverse3D learns from a StyleGAN: views of it, and to tell it what to draw.

Paper
    Zhang et al. 2021 (arXiv:2010.09125): section 3.1 (views), 4 (StyleGAN-R: a warm-up in which codes made are drawn to
    those of the pictures and selectors to a choice, then cycles: a picture's shape, texture and background come back
    from what the StyleGAN makes of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Logs, Model, Progress
from castalia.core.rng import Rng
from castalia.models.adversarial.stylegan2 import StyleGAN2
from castalia.models.shapes.ganverse3d_config import GANverse3DConfig
from castalia.models.shapes.style_space import StyleRenderer, StyleSpace

if TYPE_CHECKING:
    from castalia.models.shapes.ganverse3d import GANverse3D

ROLE = "generator"
"""Of the parent run."""

CODES = "codes"
"""The part of a batch that holds the codes of its pictures."""


def take(space: StyleSpace, config: GANverse3DConfig, parents: Mapping[str, Model]) -> None:
    """Copy the generator of the parent run.

    Raises:
        UsageError: there is none, it is no StyleGAN2, or its configuration is not the one that was given.
    """
    parent = parents.get(ROLE)
    if not isinstance(parent, StyleGAN2):
        found = "none is named" if parent is None else f"this is a {type(parent).__name__}"
        raise UsageError(f"config.generator needs a run of a stylegan2 as the parent {ROLE!r} of the recipe; {found}.")
    if parent.config != config.generator:
        raise UsageError(
            "config.generator is not the configuration of the parent run. In Python: replace(recipe, "
            "config=replace(recipe.config, generator=castalia.load(PARENT).recipe.config))."
        )
    if min(config.view_bins) < 0:
        raise UsageError(
            "Of each viewpoint it has to be said from where it looks. Draw pictures of the parent run (castalia sample "
            "PARENT -n 64 --out views/), choose some that show all sides, and give their numbers and, in thirties of "
            "degrees (0 the front, 3 from x, 6 the back), where they look from: --set config.views=[3,17,...] --set "
            "config.view_bins=[0,4,...]."
        )
    space.generator.load_state_dict(parent.generator.state_dict())


def _parts(model: GANverse3D) -> tuple[StyleSpace, StyleRenderer]:
    assert model.space is not None
    assert model.renderer is not None
    return model.space, model.renderer


@torch.no_grad()
def views_of(model: GANverse3D, batch: Batch, rng: Rng, progress: Progress) -> Batch:
    """As many new things as the batch has examples, each from two of the viewpoints; the batch itself is not looked at.

    Beside the columns of data with views stand the ``codes`` (B, D) of the first pictures.
    """
    space, renderer = _parts(model)
    count = len(renderer.views)
    content = space.codes(rng.normal("content", space.latent_dims))[:, space.view :]
    first = rng.integers("view", count)
    second = (first + 1 + rng.integers("other view", count - 1)) % count
    codes = [torch.cat([renderer.views[k], content], 1) for k in (first, second)]
    x, other = ((255 * space.pictures(c)).round().to(torch.uint8) for c in codes)
    return Batch(x, batch.ids, None, {"view": first, "other": other, "other_view": second, CODES: codes[0]})


def grounds(model: GANverse3D, x: Tensor) -> Tensor:
    """Pictures (B, C, H, W), 0 to 1, without the things in them."""
    _, mask = model.parted(x)
    return x[:, : model.colours] * (1 - mask)


def made(model: GANverse3D, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes (B, D) that StyleGAN-R makes of pictures; and vertices, textures and backgrounds that it makes them of."""
    _, renderer = _parts(model)
    with torch.no_grad():
        code = model.look_at(batch.x).mean
        vertices, moved = model.deformed(code)
        texture = model.painted(code)
        ground = grounds(model, batch.x.float() / 255)
        camera = model.seats(batch.extra["view"])
    return renderer(camera, moved, texture, ground), vertices, texture, ground


def warm_up_loss(model: GANverse3D, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
    """Codes made are drawn to those of the pictures, and each selector to one of its three sources."""
    _, renderer = _parts(model)
    codes, *_ = made(model, batch)
    far, entropy = renderer.far(codes, batch.extra[CODES]), renderer.entropy()
    return far + entropy, {"far": far.detach(), "entropy": entropy.detach()}


def cycle_loss(model: GANverse3D, batch: Batch, rng: Rng, progress: Progress) -> tuple[Tensor, Logs]:
    """What the StyleGAN draws of codes made has the shape, texture and background that they were made of.

    Backgrounds of two views of one thing make the same codes.
    """
    space, renderer = _parts(model)
    with torch.autocast(batch.x.device.type, enabled=False):
        codes, vertices, texture, ground = made(model, batch)
        picture = space.pictures(codes)
        code = model.encoder(*model.parted(picture)).mean
        again, _ = model.deformed(code)
        shape = (again - vertices).square().sum(2).mean(1).add(1e-8).sqrt().mean()
        paint = (model.painted(code) - texture).abs().mean()
        told = renderer.of_background(ground)
        back = (told - renderer.of_background(grounds(model, picture))).square().mean()
        other = renderer.of_background(grounds(model, batch.extra["other"].float() / 255))
        same = (told - other).square().mean()
        far = renderer.far(codes, batch.extra[CODES])
    # what has no part in the cycle still belongs to what this loss moves
    loss = model.config.consistency * (shape + paint + back + same)
    logs = {"shape": shape, "texture": paint, "background": back, "views": same, "far": far}
    return loss, {k: v.detach() for k, v in logs.items()}
