"""The quantised autoencoder: its codebook against k-means, its prior and its bound against enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from castalia import recipes
from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.autoencoders.codes import CodePrior, pick
from castalia.models.autoencoders.quantiser import Quantiser, perplexity, straight_through
from castalia.models.autoencoders.vqvae import VQVAE, VQVAEConfig, flat
from tests.tools import Table

SMALL: dict[str, Any] = {"codes": 4, "dims": 3, "channels": 8, "blocks": 1, "prior_dim": 8, "prior_heads": 2}


def vqvae(spec: ImageSpec, **config: Any) -> VQVAE:
    made = build(VQVAE, VQVAEConfig(**(SMALL | config)), spec)
    assert isinstance(made, VQVAE)
    return made.eval()


def vectors(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# the codebook


def test_the_gradient_passes_straight_through() -> None:
    """d f(z_q) / dz is f'(z_q), and the value is that of z_q."""
    z, q = vectors(5, 3).requires_grad_(), vectors(5, 3, 1)
    passed = straight_through(z, q)
    torch.testing.assert_close(passed.detach(), q)
    passed.pow(3).sum().backward()
    torch.testing.assert_close(z.grad, 3 * q.square())


def test_the_nearest_code_is_chosen() -> None:
    quantiser, z = Quantiser(20, 6), vectors(300, 6)
    assert torch.equal(quantiser.nearest(z), torch.cdist(z.double(), quantiser.codebook.double()).argmin(1))


def test_without_memory_the_averages_make_a_step_of_k_means() -> None:
    quantiser, z = Quantiser(5, 2, decay=0.0, restart=0.0, eps=1e-9), vectors(400, 2)
    index = quantiser.nearest(z)
    assert len(index.unique()) == 5
    quantiser.follow(z, index, BatchRng(0, total=1))
    means = torch.stack([z[index == i].mean(0) for i in range(5)])
    torch.testing.assert_close(quantiser.codebook.detach(), means, atol=1e-5, rtol=0)


def test_the_averages_are_those_of_the_paper() -> None:
    """Counts and sums by hand, appendix A.1, for three steps."""
    quantiser, n = Quantiser(3, 2, decay=0.8, restart=0.0, eps=1e-12), 50
    counts, sums = torch.full((3,), n / 3), quantiser.codebook.detach() * n / 3
    for step in range(3):
        z = vectors(n, 2, step)
        index = quantiser.nearest(z)
        quantiser.follow(z, index, BatchRng(0, total=1))
        chosen = torch.nn.functional.one_hot(index, 3).float()
        counts = 0.8 * counts + 0.2 * chosen.sum(0)
        sums = 0.8 * sums + 0.2 * chosen.T @ z
        torch.testing.assert_close(quantiser.codebook.detach(), sums / counts[:, None], atol=1e-4, rtol=1e-4)


def test_halves_of_a_batch_average_to_the_whole() -> None:
    """So several processes, each with its rows, have the codebook of one."""
    z = vectors(60, 2)
    index = Quantiser(4, 2).nearest(z)
    made = []
    for rows in (slice(None), slice(0, 30), slice(30, 60)):
        torch.manual_seed(0)
        quantiser = Quantiser(4, 2)
        quantiser.follow(z[rows], index[rows], BatchRng(0, total=1))
        made.append(torch.cat([quantiser.shares[:, None], quantiser.sums], 1).detach())
    torch.testing.assert_close(made[0], (made[1] + made[2]) / 2)


def test_codes_that_nobody_chooses_begin_anew_beside_those_that_all_choose() -> None:
    quantiser = Quantiser(4, 2, restart=0.1)
    with torch.no_grad():
        quantiser.shares.copy_(torch.tensor([0.7, 0.3, 0.0, 0.0]))
        quantiser.sums.copy_(
            torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [9.0, 9.0]]) * quantiser.smoothed()[:, None]
        )
        quantiser.revive(BatchRng(0, total=1))
    torch.testing.assert_close(quantiser.shares.detach(), torch.tensor([0.35, 0.15, 0.35, 0.15]))
    book = quantiser.codebook.detach()
    torch.testing.assert_close(book[:2], torch.eye(2), atol=1e-4, rtol=0)
    assert 0 < (book[2] - book[0]).norm() < 1
    assert 0 < (book[3] - book[1]).norm() < 1


def test_the_pull_moves_codes_only() -> None:
    quantiser, z = Quantiser(4, 2, "gradient"), vectors(50, 2).requires_grad_()
    index = quantiser.nearest(z)
    quantiser.pull(z, index).sum().backward()
    assert z.grad is None
    right = torch.stack([2 * (quantiser.codes[i] - z[index == i]).sum(0) for i in range(4)])
    torch.testing.assert_close(quantiser.codes.grad, right.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 16, 512])
def test_perplexity_is_between_one_and_the_size(size: int) -> None:
    assert perplexity(torch.zeros(40, dtype=torch.int64), size).item() == pytest.approx(1)
    assert perplexity(torch.arange(size).repeat(3), size).item() == pytest.approx(size, rel=1e-5)
    drawn = torch.randint(size, (100,), generator=torch.Generator().manual_seed(0))
    assert 1 <= perplexity(drawn, size).item() <= size + 1e-3


def test_a_code_takes_a_share_of_every_batch() -> None:
    """The commitment is summed over dims and cells, as in eq. 3, and averaged over the batch."""
    model, x = vqvae(ImageSpec(1, 8, 8), commitment=0.25), torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    loss, logs = model.loss(Batch.of(x), BatchRng(0, total=6), Progress(0, 1))
    assert loss.item() == pytest.approx(logs["reconstruction"].item() + 0.25 * logs["commitment"].item(), rel=1e-5)
    z = model.outputs_of(x, BatchRng(0, total=6))
    nearest = torch.cdist(z.double(), model.quantiser.codebook.double()).min(1).values.square().sum() / 6
    assert logs["commitment"].item() == pytest.approx(nearest.item(), rel=1e-4)


# the prior


def grids() -> Tensor:
    return torch.tensor(list(itertools.product(range(3), repeat=4)))


@pytest.fixture
def prior() -> CodePrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CodePrior(3, 4, 2, 8, 2, 2, 0.0).eval()
        with torch.no_grad():
            for p in made.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return made


@pytest.mark.parametrize("label", [0, 1, 2])
def test_all_grids_sum_to_one(prior: CodePrior, label: int) -> None:
    every = grids()
    total = prior.log_prob(every, torch.full((len(every),), label)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_a_code_sees_only_those_before_it(prior: CodePrior) -> None:
    label = torch.zeros(1, dtype=torch.int64)
    for place in range(4):
        one = torch.tensor([[1, 2, 0, 1]])
        other = one.clone()
        other[0, place:] = (one[0, place:] + 1) % 3
        torch.testing.assert_close(prior(one, label)[:, : place + 1], prior(other, label)[:, : place + 1])
        if place < 3:
            assert not torch.allclose(prior(one, label)[:, place + 1], prior(other, label)[:, place + 1])


def test_with_the_cache_as_without(prior: CodePrior) -> None:
    label, rng = torch.tensor([0, 1, 2, 0]), SampleRng(0, range(4))
    with torch.no_grad():
        fast = prior.write(4, label, rng)
        slow, uniform = torch.zeros(4, 4, dtype=torch.int64), rng.uniform("codes", 4)
        for t in range(4):
            slow[:, t] = pick(prior(slow, label)[:, t], uniform[:, t], 1.0, 0, 1.0)
    assert torch.equal(fast, slow)


def test_writing_follows_the_probabilities(prior: CodePrior) -> None:
    n, label = 4_000, torch.zeros(4_000, dtype=torch.int64)
    with torch.no_grad():
        drawn = prior.write(n, label, BatchRng(0, total=n))
        p = prior.log_prob(grids(), label[:81]).exp()
    counts = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81) / n
    assert (counts - p).abs().sum() < 0.16  # total variation of 4,000 draws over 81 grids is about 0.11


def test_held_codes_stay(prior: CodePrior) -> None:
    held, free = torch.tensor([[2, 1, 0, 2]]).expand(6, 4), torch.tensor([[True, False, True, False]]).expand(6, 4)
    with torch.no_grad():
        drawn = prior.write(6, torch.zeros(6, dtype=torch.int64), SampleRng(0, range(6)), held=held, free=free)
    assert torch.equal(drawn[:, 1::2], held[:, 1::2])
    assert not torch.equal(drawn, held)


def test_pick() -> None:
    logits, uniform = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log().expand(1000, 4), (torch.arange(1000) + 0.5) / 1000

    def shares(**options: Any) -> list[float]:
        asked = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
        return (torch.bincount(pick(logits, uniform, **asked), minlength=4) / 1000).tolist()

    assert shares() == pytest.approx([0.1, 0.5, 0.3, 0.1], abs=0.002)
    assert shares(top_k=2) == pytest.approx([0, 0.625, 0.375, 0], abs=0.002)
    assert shares(top_p=0.6) == pytest.approx([0, 0.625, 0.375, 0], abs=0.002)
    assert shares(top_p=0.4) == shares(temperature=0.0) == [0, 1, 0, 0]
    assert shares(temperature=0.5) == pytest.approx([0.01 / 0.36, 0.25 / 0.36, 0.09 / 0.36, 0.01 / 0.36], abs=0.002)


# the whole


def test_the_bound_is_one() -> None:
    """Not above log of the sum over all 256 grids of codes; each term of it is p(x | z) p(z)."""
    model = vqvae(ImageSpec(1, 8, 8), binarise="threshold")
    x = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    found = model.log_likelihood(Batch.of(x), rng=SampleRng(0, range(5)))
    assert found.kind == "bound"
    every = torch.tensor(list(itertools.product(range(4), repeat=4)))
    target = model.pixels.target(x, None)
    with torch.no_grad():
        outputs = model.outputs(every.view(-1, 2, 2))
        given = torch.stack([model.pixels.log_prob(o.expand(1, 5, -1, -1, -1), target)[0] for o in outputs]).double()
        joint = given + model.prior.log_prob(every, None)[:, None]
    exact = torch.logsumexp(joint, 0)
    assert (found.nats <= exact + 1e-6).all()
    own = (model.codes(Batch.of(x)).flatten(1) * torch.tensor([64, 16, 4, 1])).sum(1)
    torch.testing.assert_close(found.nats, joint[own, torch.arange(5)], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(28, 28), (13, 10), (9, 32)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_any_size_and_likelihood(size: tuple[int, int], likelihood: str) -> None:
    model = vqvae(ImageSpec(3, *size), likelihood=likelihood, mixtures=2)
    assert model.sample(2, rng=SampleRng(0, range(2))).x.shape == (2, 3, *size)
    x = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    codes = model.codes(Batch.of(x))
    assert codes.shape == (3, -(-size[0] // 4), -(-size[1] // 4))
    assert model.pictures(codes).x.shape == x.shape
    mask = torch.zeros(1, 1, *size, dtype=torch.bool)
    mask[..., -1, -1] = True
    filled = model.refine(Batch.of(x), mask=mask, rng=SampleRng(0, range(3))).x
    assert torch.equal(filled[~mask.expand_as(filled)], x[~mask.expand_as(x)])


def test_the_gradient_codebook_is_reached_by_the_loss() -> None:
    model = vqvae(ImageSpec(1, 8, 8), codebook="gradient")
    first, _ = model.stages()
    assert [o.name for o in first.objectives] == ["vqvae"]
    x = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    loss, logs = model.loss(Batch.of(x), BatchRng(0, total=6), Progress(0, 1))
    loss.backward()
    assert model.quantiser.codes.grad is not None
    assert logs["perplexity"] >= 1


def test_the_second_stage_sees_the_codes_of_the_encoder() -> None:
    spec = ImageSpec(1, 8, 8, ("a", "b"))
    x = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    model, table = vqvae(spec, conditional=True), Table(x, spec, torch.arange(300) % 2)
    model.initialise(table, BatchRng(0, total=1), {})
    made = model.encoded(table).batch(torch.tensor([3, 270]).numpy())
    right = model.codes(table.batch(torch.tensor([3, 270]).numpy()), rng=SampleRng(0, [3, 270]))
    assert torch.equal(made.x.long(), right)
    assert made.label is not None
    assert made.label.tolist() == [1, 0]


def test_the_first_codes_are_outputs_of_the_encoder() -> None:
    spec = ImageSpec(1, 8, 8)
    x = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)
    model = vqvae(spec)
    model.initialise(Table(x, spec), BatchRng(0, total=1), {})
    z = flat(model.encoder(model.pixels.features(model.pixels.target(x, None)))).detach()
    gaps = torch.cdist(model.quantiser.codebook.detach(), z).min(1).values
    assert (gaps < z.std(0).norm()).all()


def test_a_conditional_prior_needs_classes() -> None:
    with pytest.raises(UsageError, match="no labels"):
        vqvae(ImageSpec(1, 8, 8), conditional=True)


@pytest.mark.parametrize("wrong", [{"codes": 1}, {"prior_heads": 3}, {"decay": 1.0}, {"commitment": -1.0}])
def test_bad_configurations_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VQVAEConfig(**wrong)  # type: ignore[arg-type]


def test_sizes_of_the_paper() -> None:
    """Section 4.1: two strided 4x4 convolutions, two residual blocks of 3x3 and 1x1, 256 channels; K = 512, D = 64."""
    config = recipes.recipe("vqvae-cifar-paper").config
    model = build(VQVAE, config, ImageSpec(3, 32, 32))
    assert isinstance(model, VQVAE)

    def conv(a: int, b: int, k: int) -> int:
        return a * b * k * k + b

    blocks = 2 * (conv(256, 256, 3) + conv(256, 256, 1))
    encoder = conv(3, 256, 4) + conv(256, 256, 4) + conv(256, 256, 3) + blocks + conv(256, 64, 1)
    maps = model.pixels.maps
    decoder = conv(64, 256, 3) + blocks + conv(256, 256, 4) + 256 * maps * 16 + maps + maps * 32 * 32
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder
    assert model.quantiser.codebook.shape == (512, 64)
    assert (model.rows, model.columns) == (8, 8)


def test_a_rare_code_stays_at_the_mean_of_its_vectors() -> None:
    """Smoothing is far below the share of any code that is used: else rare codes are drawn to zero."""
    quantiser, size = Quantiser(8192, 1, decay=0.9, restart=0.0), 8192
    with torch.no_grad():
        quantiser.shares.fill_(0.15 / size)
        quantiser.sums.fill_(10 * 0.15 / size)
    torch.testing.assert_close(quantiser.codebook, torch.full((size, 1), 10.0), atol=1e-3, rtol=0)


def test_vectors_of_a_refused_step_do_not_move_codes() -> None:
    quantiser, other = Quantiser(4, 2), Quantiser(4, 2)
    other.load_state_dict(quantiser.state_dict())
    z, index = torch.randn(20, 2), torch.arange(20) % 4
    broken = torch.cat([z, torch.full((3, 2), torch.nan)])
    quantiser.follow(broken, torch.cat([index, torch.zeros(3, dtype=torch.int64)]), BatchRng(0, total=1))
    other.follow(z, index, BatchRng(0, total=1))
    assert torch.equal(quantiser.codebook, other.codebook)


def test_dead_codes_begin_beside_living_ones() -> None:
    quantiser = Quantiser(8, 2, restart=0.1)
    with torch.no_grad():
        quantiser.shares.copy_(torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0]))
        quantiser.sums.copy_(quantiser.shares[:, None] * torch.tensor([3.0, 4.0]))
    quantiser.revive(BatchRng(0, total=1))
    alive = quantiser.shares >= 0.1 / 8
    assert int(alive.sum()) == 4  # as many as there are living ones to begin beside
    assert (quantiser.codebook[alive] - torch.tensor([3.0, 4.0])).abs().max() < 1.0
