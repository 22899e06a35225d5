"""A picture as a textured mesh that turns."""

from __future__ import annotations

from dataclasses import dataclass

from castalia.creative.edit import Edit, Film, Work, option

SIDES = 6
"""Views in a picture of it, evenly spaced around."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which picture, and how long it takes to go around what it shows."""

    of: str | None = option(None, "a picture of yours instead of a new thing", metavar="A.png", example=True)
    frames: int = option(48, "how many (48)", least=2)
    seed: int = option(0, "another thing")
    fps: float = option(16.0, "frames a second (16)")


def run(work: Work, options: Options) -> Film:
    """From latents, which are those of the picture or drawn, to a mesh, and pictures of that from all around."""
    import torch

    from castalia.core.data import Batch
    from castalia.core.errors import UsageError
    from castalia.creative.edit import Grid
    from castalia.media.shape.glb import textured_glb

    model, given = work.model, 0
    shown: list[torch.Tensor] = []
    if options.of is None:
        z = work.rng(options.seed, range(1)).normal("latent", model.latent_dims)
    else:
        if not hasattr(model, "encode"):
            raise UsageError("This model does not find the thing in a picture; leave the picture out for a new one.")
        x = work.examples([options.of]).x
        z, given = model.encode(Batch.of(x.to(model.device))), 1
        shown.append(x.cpu())
    mesh = model.mesh(z)

    def around(count: int) -> torch.Tensor:
        degrees = 30 + 360 * torch.arange(count, device=model.device) / count
        return torch.cat([model.look(mesh, degrees[i : i + 1]).cpu() for i in range(count)])

    shown.append(around(SIDES))
    texture = mesh.texture[0].permute(1, 2, 0).cpu().numpy()
    data = textured_glb(
        mesh.vertices[0].cpu().numpy(),
        mesh.faces.cpu().numpy(),
        mesh.places.cpu().numpy(),
        texture[..., 0] if texture.shape[2] == 1 else texture,
        options.frames / options.fps,
    )
    still = Grid(Batch.of(torch.cat(shown)), given + SIDES, given)
    return Film(Batch.of(around(options.frames)), options.fps, still=still, files={".glb": data})


EDIT = Edit(
    "solidify",
    "Make a textured mesh of the thing in a picture, and go around it.",
    "FILE.glb, a mesh that turns; FILE.gif, .mp4 or .webp; FILE.png, the picture and the thing from six sides",
    Options,
    run,
    needs=("Meshing",),
    media=("image",),
)
