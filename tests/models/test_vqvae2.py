"""The two-level VQ-VAE: both grids, priors that normalise, the bound, sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.quantiser import straight_through
from castalia.models.autoencoders.vqvae import VQVAEOptions
from castalia.models.autoencoders.vqvae2 import VQVAE2, VQVAE2Config
from tests.models.flows.test_layers import stir
from tests.tools import Table

SMALL = VQVAE2Config(
    codes=3,
    dims=4,
    levels=1,
    channels=8,
    blocks=1,
    residual=4,
    binarise="threshold",
    prior_dim=8,
    prior_layers=1,
    prior_heads=2,
    prior_dropout=0.0,
)
SPEC = ImageSpec(1, 8, 8, ("a", "b"))


def made(config: VQVAE2Config = SMALL, spec: ImageSpec = SPEC) -> VQVAE2:
    model = build(VQVAE2, config, spec)
    assert isinstance(model, VQVAE2)
    x = pictures(40, spec)
    model.initialise(Table(x, spec, torch.arange(40) % 2), BatchRng(0, total=1), {})
    for part in (model.top_prior, model.prior, model.beside):
        stir(part, width=0.3)
    return model.eval()


def pictures(n: int = 5, spec: ImageSpec = SPEC) -> torch.Tensor:
    return torch.randint(0, 256, (n, *spec.shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (28, 28), (10, 6)])
def test_grids_of_any_size(size: tuple[int, int]) -> None:
    spec = ImageSpec(1, *size)
    model = made(spec=spec)
    top, bottom = model.codes(Batch.of(pictures(2, spec)))
    h, w = -(-size[0] // 2), -(-size[1] // 2)
    assert bottom.shape == (2, h, w)
    assert top.shape == (2, -(-h // 2), -(-w // 2))
    assert model.pictures(top, bottom).x.shape == (2, 1, *size)


@torch.no_grad()
def test_fine_codes_are_chosen_given_the_coarse_ones_and_both_go_into_the_picture() -> None:
    model = made()
    batch = Batch.of(pictures())
    maps = model._seen(batch.x, None)
    top, bottom = model.codes(batch)
    other = (top + 1) % 3
    fine = [model._fine(maps, model.top.vectors(t).permute(0, 3, 1, 2)) for t in (top, other)]
    assert not torch.equal(*fine)
    assert not torch.equal(model.outputs(top, bottom), model.outputs(other, bottom))
    assert not torch.equal(model.outputs(top, bottom), model.outputs(top, (bottom + 1) % 3))


@torch.no_grad()
def test_the_priors_sum_to_one() -> None:
    """Over all grids of four fine cells, given a coarse one; and each cell sees the coarse grid and those before it."""
    spec = ImageSpec(1, 4, 4)
    model = made(replace(SMALL, levels=1), spec)
    assert (model.rows, model.top_rows) == (2, 1)
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    for t in range(3):
        beside = model.beside(torch.full((len(every), 1, 1), t))
        log_p = model.prior.log_prob(every, None, beside)
        assert float(torch.logsumexp(log_p, 0)) == pytest.approx(0.0, abs=1e-5)
    assert float(torch.logsumexp(model.top_prior.log_prob(torch.arange(3)[:, None], None), 0)) == pytest.approx(
        0.0, abs=1e-5
    )


def test_what_the_fine_prior_sees() -> None:
    model = made()
    codes = torch.zeros(1, 16, dtype=torch.int64)
    beside = model.beside(torch.zeros(1, 2, 2, dtype=torch.int64)).detach().requires_grad_(True)
    logits = model.prior(codes, None, beside)
    for place in range(16):
        (slope,) = torch.autograd.grad(logits[0, place].square().sum(), beside, retain_graph=True)
        seen = slope[0].abs().sum(1) > 0
        assert bool(seen[place])
        assert not seen[place + 1 :].any()


@torch.no_grad()
def test_the_bound_is_the_sum_of_its_three_terms() -> None:
    model, batch = made(), Batch.of(pictures())
    rng = SampleRng(0, range(5))
    found = model.log_likelihood(batch, rng=rng)
    top, bottom = model.codes(batch, rng=rng)
    target = model.pixels.target(batch.x, rng)
    pixels = model.pixels.log_prob(model.outputs(top, bottom)[None], target)[0].double()
    one = model.top_prior.log_prob(top.flatten(1), None)
    two = model.prior.log_prob(bottom.flatten(1), None, model.beside(top))
    torch.testing.assert_close(found.nats, pixels + one + two)
    assert found.kind == "bound"


@torch.no_grad()
def test_written_codes_have_the_probabilities_of_the_priors() -> None:
    """Frequencies of the coarse code and of the first fine one, over many draws."""
    spec = ImageSpec(1, 4, 4)
    model = made(SMALL, spec)
    n = 4_000
    rng = SampleRng(0, range(n))
    top = model.top_prior.write(n, None, rng.at("top"))
    shares = torch.bincount(top[:, 0], minlength=3) / n
    expected = model.top_prior.log_prob(torch.arange(3)[:, None], None).exp().float()
    assert (shares - expected).abs().max() < 0.04
    beside = model.beside(top.view(n, 1, 1))
    bottom = model.prior.write(n, None, rng.at("bottom"), beside=beside)
    for t in range(3):
        mine = bottom[top[:, 0] == t, 0]
        logits = model.prior(torch.zeros(1, 4, dtype=torch.int64), None, model.beside(torch.full((1, 1, 1), t)))[0, 0]
        assert (torch.bincount(mine, minlength=3) / len(mine) - torch.softmax(logits, 0)).abs().max() < 0.06


def test_gradients_pass_through_both_grids() -> None:
    model = made().train()
    loss, _ = model.loss(Batch.of(pictures(8)), BatchRng(0, total=8), Progress(0, 1))
    parts = (model.encoder, model.top_encoder, model.top_up, model.join, model.decoder)
    for part in parts:
        (slope,) = torch.autograd.grad(loss, [next(part.parameters())], retain_graph=True)
        assert slope.isfinite().all()
        assert slope.abs().max() > 0
    z = torch.randn(3, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(straight_through(z, torch.zeros(3, 4)).sum(), z)
    assert torch.equal(slope, torch.ones(3, 4))


@torch.no_grad()
def test_redrawing_changes_whole_coarse_cells() -> None:
    model, x = made(), pictures()
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 0, 0] = True
    y = model.refine(Batch.of(x), mask=mask, rng=SampleRng(0, range(5)), options=VQVAEOptions(pixels="sample")).x
    assert torch.equal(y[:, :, 1:, 1:], x[:, :, 1:, 1:])


def test_the_size_of_the_paper() -> None:
    """Autoencoder of 128 channels, two blocks of 32, codes of 64: each layer counted by hand."""

    def conv(a: int, b: int, k: int) -> int:
        return a * b * k * k + b

    c, d = 128, 64
    block = conv(c, 32, 3) + conv(32, c, 1)
    encoder = conv(3, c, 4) + conv(c, c, 4) + conv(c, c, 3) + 2 * block + conv(c, c, 1)
    top = conv(c, c, 4) + conv(c, c, 3) + 2 * block + conv(c, d, 1)
    up = conv(d, c, 3) + 2 * block + conv(c, d, 4)
    config = VQVAE2Config(likelihood="gaussian")
    decoder = conv(2 * d, c, 3) + 2 * block + conv(c, c, 4) + conv(c, 6, 4) + 6 * 256 * 256
    with torch.device("meta"):
        model = VQVAE2(config, ImageSpec(3, 256, 256))
    parts = (model.encoder, model.top_encoder, model.top_up, model.top_up_again, model.join, model.decoder)
    found = sum(p.numel() for part in parts for p in part.parameters())
    assert found == encoder + top + up + conv(d, d, 4) + conv(c + d, d, 1) + decoder
    assert (model.rows, model.top_rows) == (64, 32)


def test_the_commitment_is_that_of_both_grids() -> None:
    """Squared distances to the codes, summed over cells, with gradients for the networks and none for the codes."""
    model, batch = made(replace(SMALL, commitment=0.7)), Batch.of(pictures())
    coarse, top, fine, bottom = model._vectors(batch.x, None)
    expected = sum(
        (z - book.vectors(index)).square().sum() / 5
        for z, book, index in ((coarse, model.top, top), (fine, model.bottom, bottom))
    )
    loss, logs = model.loss(batch, BatchRng(0, total=5), Progress(0, 1))
    torch.testing.assert_close(logs["commitment"], expected)
    torch.testing.assert_close(loss, logs["reconstruction"] + 0.7 * logs["commitment"])
    for part in (model.top_encoder, model.join):
        (slope,) = torch.autograd.grad(logs["commitment"], [next(part.parameters())], retain_graph=True)
        assert slope.abs().max() > 0
    moved = torch.autograd.grad(loss, [model.top.sums, model.bottom.sums], allow_unused=True)
    assert all(slope is None or not slope.any() for slope in moved)


@torch.no_grad()
def test_both_codebooks_follow_what_chose_them() -> None:
    model, batch, rng = made(), Batch.of(pictures(40)), BatchRng(0, total=40)
    _, top, _, bottom = vectors = model._vectors(batch.x, rng)
    before = [book.codebook.clone() for book in (model.top, model.bottom)]
    with torch.enable_grad():
        model.loss(batch, rng, Progress(0, 1))
    model.follow(batch, rng, Progress(0, 1))
    for book, old, z, index in zip((model.top, model.bottom), before, vectors[::2], (top, bottom), strict=True):
        for code in index.unique():
            mean = z[index == code].mean(0)
            assert (book.codebook[code] - mean).norm() < (old[code] - mean).norm()


@torch.no_grad()
def test_the_priors_learn_the_codes_of_the_pictures() -> None:
    """Their losses are what the bound takes from their grids, for rows as the stages give them."""
    model, x = made(), pictures()
    rows = model.encoded(Table(x, SPEC)).batch(np.arange(5))
    top, bottom = model.codes(Batch.of(x))
    one, _ = model.top_loss(rows, BatchRng(0, total=5), Progress(0, 1))
    two, _ = model.bottom_loss(rows, BatchRng(0, total=5), Progress(0, 1))
    nats = model.top_prior.log_prob(top.flatten(1), None).mean() / 4
    torch.testing.assert_close(one.double(), -nats, atol=1e-5, rtol=1e-5)
    nats = model.prior.log_prob(bottom.flatten(1), None, model.beside(top)).mean() / 16
    torch.testing.assert_close(two.double(), -nats, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_codes_outside_of_the_mask_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, seen = made(), pictures(), []
    top, bottom = model.codes(Batch.of(x))
    shown = model.pictures
    monkeypatch.setattr(model, "pictures", lambda *grids, rng=None: seen.append(grids) or shown(*grids, rng=rng))
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4, 4:] = True
    for seed in range(8):
        model.refine(Batch.of(x), mask=mask, rng=SampleRng(seed, range(5)))
    other = torch.stack([(a != top).any(0) for a, _ in seen]).any(0)
    assert other.tolist() == [[False, True], [False, False]]
    fine = torch.stack([(b != bottom).any(0) for _, b in seen]).any(0)
    assert torch.equal(fine, other.repeat_interleave(2, 0).repeat_interleave(2, 1))


@torch.no_grad()
def test_drawing_as_asked() -> None:
    model, rng = made(), SampleRng(0, range(6))
    likeliest = model.sample(6, rng=rng, options=VQVAEOptions(temperature=0.0)).x
    for options in (VQVAEOptions(top_k=1), VQVAEOptions(top_p=1e-6)):
        assert torch.equal(model.sample(6, rng=rng, options=options).x, likeliest)
    assert not torch.equal(model.sample(6, rng=rng).x, likeliest)
    binary = model.sample(6, rng=rng, options=VQVAEOptions(pixels="sample")).x
    assert set(binary.unique().tolist()) == {0, 255}
    assert [stage.share for stage in model.stages()] == pytest.approx([0.5, 0.5 * 0.4, 0.5 * 0.6])


@torch.no_grad()
def test_both_priors_are_told_the_class() -> None:
    model = made(replace(SMALL, conditional=True))
    batch = [Batch(pictures(), torch.arange(5), torch.full((5,), y)) for y in (0, 1)]
    for prior, cells in ((model.top_prior, 4), (model.prior, 16)):
        codes = torch.zeros(1, cells, dtype=torch.int64)
        assert not torch.equal(*(prior(codes, torch.tensor([y])) for y in (0, 1)))
    nats = [model.log_likelihood(b, rng=SampleRng(0, range(5))).nats for b in batch]
    assert not torch.equal(*nats)


@pytest.mark.parametrize("wrong", [{"codebook": "gradient"}, {"top_share": 0.0}, {"codes": 1}])
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        VQVAE2Config(**wrong)
