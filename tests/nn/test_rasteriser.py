"""The rasteriser against a slow and simple one, against finite differences, and at work."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from castalia.models.shapes.meshes import Sphere, folds, smoothed, sphere
from castalia.nn import rasteriser
from castalia.nn.rasteriser import Camera, corners, interpolate, project, render, silhouette, textured, visible

SIDE = 20


def cameras(
    *azimuth: float, elevation: float = 15.0, distance: float = 4.0, dtype: torch.dtype = torch.float64
) -> Camera:
    a = torch.tensor(azimuth, dtype=dtype)
    return Camera(a, torch.full_like(a, elevation), torch.full_like(a, distance))


def heap(n: int = 12, seed: int = 0) -> Tensor:
    """Triangles in disorder, projected: (1, n, 3, 3)."""
    g = torch.Generator().manual_seed(seed)
    places = SIDE * torch.rand(1, n, 3, 2, generator=g, dtype=torch.float64)
    return torch.cat([places, 1 + 3 * torch.rand(1, n, 3, 1, generator=g, dtype=torch.float64)], 3)


def slow(triangles: np.ndarray, values: np.ndarray, softness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pixel against every triangle, one after the other."""
    seen, out, alpha = np.full((SIDE, SIDE), -1), np.zeros((SIDE, SIDE, values.shape[-1])), np.zeros((SIDE, SIDE))
    for i in range(SIDE):
        for j in range(SIDE):
            best, gap, p = math.inf, 1.0, np.array([j, i], float)
            for f, t in enumerate(triangles):
                flat, z = t[:, :2], t[:, 2]
                lines = np.concatenate([flat.T, np.ones((1, 3))])
                b = np.linalg.solve(lines, np.array([j, i, 1.0]))
                if (b >= 0).all():
                    depth = 1 / (b / z).sum()
                    if depth < best:
                        best, seen[i, j] = depth, f
                        out[i, j] = (b / z) @ values[f] * depth
                ends = [(flat[k], flat[(k + 1) % 3]) for k in range(3)]
                shares = [np.clip((p - a) @ (c - a) / ((c - a) @ (c - a)), 0, 1) for a, c in ends]
                apart = min(float(((a + s * (c - a) - p) ** 2).sum()) for (a, c), s in zip(ends, shares, strict=True))
                gap *= 1 - math.exp(-apart / softness**2)
            alpha[i, j] = 1.0 if seen[i, j] >= 0 else 1 - gap
    return seen, out, alpha


@pytest.mark.parametrize("at_once", [1 << 20, 37])
def test_pictures_equal_those_of_a_slow_reference(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only a few pixels are looked at at a time."""
    monkeypatch.setattr(rasteriser, "AT_ONCE", at_once)
    triangles = heap(5)
    triangles[..., :2] = 3 + 0.5 * triangles[..., :2]
    values = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, out, alpha = slow(triangles[0].numpy(), values.numpy(), 1.2)
    seen = visible(triangles, SIDE, SIDE)
    assert len(set(found.flatten().tolist())) > 4  # several are seen, and not everything is covered
    assert (seen[0].numpy() == found).all()
    np.testing.assert_allclose(interpolate(triangles, seen, values)[0].numpy(), out, atol=1e-12)
    np.testing.assert_allclose(interpolate(triangles, seen, values[None])[0].numpy(), out, atol=1e-12)
    # parts below LEAST are left out there
    np.testing.assert_allclose(silhouette(triangles, seen, 1.2)[0].numpy(), alpha, atol=5 * rasteriser.LEAST)
    assert (alpha[found < 0] > 0.2).any()


def test_pictures_of_a_batch_are_those_of_each() -> None:
    both = torch.cat([heap(7, 0), heap(7, 1)])
    seen = visible(both, SIDE, SIDE)
    values = torch.rand(2, 7, 3, 2, dtype=torch.float64)
    whole, soft = interpolate(both, seen, values), silhouette(both, seen)
    for i in range(2):
        alone = visible(both[i : i + 1], SIDE, SIDE)
        assert torch.equal(alone[0], seen[i])
        assert torch.equal(interpolate(both[i : i + 1], alone, values[i : i + 1])[0], whole[i])
        torch.testing.assert_close(silhouette(both[i : i + 1], alone)[0], soft[i])


def test_the_camera() -> None:
    """From the front x is right and y up; from 90 degrees one looks from x; nearer is larger."""
    point = torch.tensor([[[0.5, 0.25, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    front = project(point, cameras(0.0, elevation=0.0), 65, 65)[0]
    right = project(point, cameras(90.0, elevation=0.0), 65, 65)[0]
    above = project(point, cameras(0.0, elevation=90.0), 65, 65)[0]
    half = 32.5 / math.tan(math.radians(15))
    assert front[0].tolist() == pytest.approx([32 + half * 0.5 / 4, 32 - half * 0.25 / 4, 4.0])
    assert front[1].tolist() == pytest.approx([32, 32, 3.0])
    assert right[0].tolist() == pytest.approx([32, 32 - half * 0.25 / 3.5, 3.5])
    assert right[1].tolist() == pytest.approx([32 - half / 4, 32, 4.0])
    assert above[1].tolist() == pytest.approx([32, 32 + half / 4, 4.0])


def test_what_cannot_be_drawn_is_left_out() -> None:
    """Behind the camera, without area, without a place, far outside: nothing is drawn, and nothing breaks."""
    triangles = heap(6)
    triangles[0, 0, 0, 2] = -1.0
    triangles[0, 1, 1] = triangles[0, 1, 0]
    triangles[0, 2, 0, 0] = math.nan
    triangles[0, 3, 2, 1] = math.inf
    triangles[0, 4, :, :2] += 1e18
    seen = visible(triangles, SIDE, SIDE)
    assert set(seen.unique().tolist()) == {-1, 5}
    assert silhouette(triangles, seen).isfinite().all()


def test_a_texture_goes_round() -> None:
    texture = torch.arange(8.0).view(1, 1, 1, 8)
    middles = (torch.arange(8.0) + 0.5) / 8
    for turns in (0.0, 1.0, -2.0):
        places = torch.stack([middles + turns, torch.full((8,), 0.5)], 1)[None, None]
        torch.testing.assert_close(textured(texture, places)[0, 0, 0], torch.arange(8.0), atol=2e-5, rtol=0)
    seam = textured(texture, torch.tensor([[[[0.0, 0.5], [1.0, 0.5]]]]))
    torch.testing.assert_close(seam.flatten(), torch.tensor([3.5, 3.5]))


def test_gradients_equal_finite_differences() -> None:
    """Of colours and of the silhouette, to vertices, texture and camera: 1e-3 of the largest, in float64."""
    ball = sphere(1)
    g = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    vertices = (0.6 * ball.vertices.double() + 0.03 * random(42, 3))[None]
    texture, aim = torch.rand(1, 3, 8, 8, generator=g, dtype=torch.float64), random(1, 3, SIDE, SIDE)
    soft, camera = random(1, SIDE, SIDE), cameras(25.0)
    with torch.no_grad():  # which triangle is seen has no gradient: it stays what it is
        triangles = corners(project(vertices, camera, SIDE, SIDE), ball.faces)
        seen = visible(triangles, SIDE, SIDE)

    def score(v: Tensor, t: Tensor, a: Tensor, e: Tensor, d: Tensor) -> Tensor:
        tri = corners(project(v, Camera(a, e, d), SIDE, SIDE), ball.faces)
        colour = textured(t, interpolate(tri, seen, ball.places.double()))
        return ((colour * aim).sum(1) * (seen >= 0)).sum() + (silhouette(tri, seen, 1.5) * soft).sum()

    inputs = [x.clone().requires_grad_(True) for x in (vertices, texture, *camera[:3])]
    gradients = torch.autograd.grad(score(*inputs), inputs)
    for k, gradient in enumerate(gradients):
        assert gradient.abs().max() > 0
        found = torch.zeros_like(gradient).flatten()
        places = torch.randperm(found.numel(), generator=g)[:60]
        for i in places.tolist():
            ends = []
            for step in (-1e-6, 1e-6):
                moved = [x.detach().clone() for x in inputs]
                moved[k].view(-1)[i] += step
                ends.append(score(*moved))
            found[i] = (ends[1] - ends[0]) / 2e-6
        error = (found - gradient.flatten())[places].abs().max() / gradient.abs().max()
        assert error < 1e-3, f"input {k}: {error}"


def lump(ball: Sphere) -> Tensor:
    """A shape of one piece with a long nose: (V, 3)."""
    v = ball.vertices
    return v * (0.35 + 0.3 * v[:, 2:].clamp(min=0) ** 2 + 0.15 * (2 * v[:, 1:2]).sin().abs())


def test_a_shape_is_found_from_its_silhouettes() -> None:
    """A sphere is deformed until its silhouettes from eight sides are those of a shape: IoU above 0.95 from others too."""
    ball, side = sphere(2), 48
    aim = lump(ball)[None]

    def masks(v: Tensor, softness: float, *around: float) -> tuple[Tensor, Tensor]:
        camera = cameras(*around, elevation=20.0, distance=3.0, dtype=torch.float32)
        triangles = corners(project(v, camera, side, side), ball.faces)
        seen = visible(triangles, side, side)
        return silhouette(triangles, seen, softness), seen >= 0

    sides = tuple(45.0 * k for k in range(8))
    target = masks(aim, 1.5, *sides)[1].float()
    moved = torch.zeros(1, len(ball.vertices), 3, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=2e-2)
    for step in range(120):
        # edges get harder: soft ones add up where triangles are small, and the shape shrinks below them
        alpha, _ = masks(0.45 * ball.vertices + moved, 0.7 * (1 / 7) ** (step / 119), *sides)
        overlap = (alpha * target).sum((1, 2)) / (alpha + target - alpha * target).sum((1, 2))
        rough = smoothed(moved, ball.edges, ball.degree).square().sum(2).mean()
        loss = (1 - overlap).mean() + 3 * rough
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / 120)
    with torch.no_grad():
        for around in (sides, (22.5, 112.5, 202.5, 292.5)):
            mine, theirs = masks(0.45 * ball.vertices + moved, 0.5, *around)[1], masks(aim, 0.5, *around)[1]
            iou = (mine & theirs).sum((1, 2)) / (mine | theirs).sum((1, 2))
            assert iou.min() > 0.95, iou


@pytest.mark.parametrize(("divisions", "vertices"), [(0, 12), (1, 42), (3, 642)])
def test_the_sphere(divisions: int, vertices: int) -> None:
    ball = sphere(divisions)
    v, f = ball.vertices, ball.faces
    assert len(v) == vertices
    assert len(f) == 2 * vertices - 4
    assert len(ball.edges) == 3 * vertices - 6
    torch.testing.assert_close(v.norm(dim=1), torch.ones(len(v)))
    a, b, c = (v[f[:, i]] for i in range(3))
    assert (torch.linalg.cross(b - a, c - a) * a).sum(1).min() > 0  # anticlockwise from outside
    torch.testing.assert_close(v[ball.mirror], v * torch.tensor([-1.0, 1, 1]))
    assert torch.equal(ball.mirror[ball.mirror], torch.arange(len(v)))
    # each edge with its two triangles
    for edge, wing in zip(ball.edges.tolist(), ball.wings.tolist(), strict=True):
        assert {frozenset([*edge, w]) for w in wing} <= {frozenset(t) for t in f.tolist()}
        assert wing[0] != wing[1]
    u, down = ball.places.unbind(2)
    assert (u.amax(1) - u.amin(1)).max() <= 0.5
    torch.testing.assert_close((1 - 2 * down.clamp(0, 1)), 1 - 2 * torch.arccos(v[f][..., 1].clamp(-1, 1)) / math.pi)
    front = v[f].mean(1).argmax(0)[2]
    assert u[front].mean() == pytest.approx(0.5, abs=0.1)


def test_smoothness() -> None:
    """A sphere has a small and even Laplacian, and hardly a fold; a spike has both."""
    ball = sphere(3)
    v = ball.vertices[None]
    laplacian = smoothed(v, ball.edges, ball.degree)[0]
    assert (laplacian.norm(dim=1) < 0.03).all()
    assert folds(v, ball.edges, ball.wings).abs().max() < 0.05
    spike = v.clone()
    spike[0, 5] *= 2
    assert smoothed(spike, ball.edges, ball.degree)[0, 5].norm() > 0.9
    assert folds(spike, ball.edges, ball.wings).max() > 0.7
    flat = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0]]])
    edge, wing = torch.tensor([[0, 1]]), torch.tensor([[2, 3]])
    assert folds(flat, edge, wing).item() == pytest.approx(0)
    flat[0, 3] = torch.tensor([0.0, 1, 0])
    assert folds(flat, edge, wing).item() == pytest.approx(2)


def test_a_picture_of_a_ball() -> None:
    """It covers the disc that it must, and its texture is where it must be."""
    ball, side = sphere(4), 64
    texture = torch.zeros(1, 3, 4, 8)
    texture[:, 0, :, 4:] = 1  # red where x > 0
    got = render(
        0.8 * ball.vertices[None],
        ball.faces,
        ball.places,
        texture,
        cameras(0.0, elevation=0.0, dtype=torch.float32),
        side,
        side,
    )
    radius = side / 2 / math.tan(math.radians(15)) * math.tan(math.asin(0.8 / 4))
    assert got.covered.sum().item() == pytest.approx(math.pi * radius**2, rel=0.02)
    assert got.colour[0, 0, 32, 48] > 0.99
    assert got.colour[0, 0, 32, 16] < 0.01
    assert (got.colour * ~got.covered[:, None]).abs().max() == 0
    assert ((got.alpha == 1) | ~got.covered).all()
    assert 0.9 < got.alpha[~got.covered].max() <= 1
    assert got.alpha[0, :4, :4].max() == 0
