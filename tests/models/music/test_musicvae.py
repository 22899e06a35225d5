"""MusicVAE: its decoders, its loss, and that it can learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.music import DRUMS, MusicSpec
from castalia.media.music.read import MusicOptions
from castalia.media.music.sets import tunes
from castalia.models.autoencoders.vae import gaussian_kl
from castalia.models.music.melodies import Hierarchical, one_hot
from castalia.models.music.musicvae import SIZES, MusicVAE, MusicVAEConfig

SPEC = MusicSpec("voices", 16, 4, 4, ("melody", DRUMS), (0, 0), 48, 60)
NOW = Progress(100, 1000)


def small(spec: MusicSpec = SPEC, **config: Any) -> MusicVAE:
    settings = {"latent_dims": 3, "encoder": (5,), "hidden": (6, 6), "conductor": (7,), **config}
    made = build(MusicVAE, MusicVAEConfig(**settings), spec)
    assert isinstance(made, MusicVAE)
    return made.double()


def some(n: int = 4) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    melody = torch.randint(0, 15, (n, 16), generator=g)
    return torch.stack([melody, torch.randint(0, 512, (n, 16), generator=g)], 2)


@pytest.mark.parametrize(
    ("name", "sizes", "millions"),
    [
        ("mel_2bar_small", (90,), 4.4),
        ("mel_2bar_big", (90,), 135),
        ("16bar_hierarchical", (90,), 176),
        ("16bar_hierarchical", (90, 90, 512), 231),
    ],
)
def test_sizes_of_the_published_configurations(name: str, sizes: tuple[int, ...], millions: float) -> None:
    """Counted layer by layer; the published code has one bias for each gate where torch has two."""
    c, given = SIZES[name], sum(sizes)

    def lstm(inputs: int, widths: tuple[int, ...], both: bool = False) -> int:
        total = 0
        for width in widths:
            total += (1 + both) * 4 * width * (inputs + width + 2)
            inputs = (1 + both) * width
        return total

    def core(vector: int, values: int, widths: tuple[int, ...]) -> int:
        begin = (vector + 1) * 2 * len(widths) * widths[0]
        return begin + lstm(values + vector, widths) + (widths[0] + 1) * values

    expected = lstm(given, c.encoder, both=True) + 2 * (2 * c.encoder[0] + 1) * c.latent_dims
    if c.decoder == "flat":
        expected += core(c.latent_dims, given, c.hidden)
    else:
        expected += (c.latent_dims + 1) * 2 * len(c.conductor) * c.conductor[0] + lstm(1, c.conductor)
        expected += sum(core(c.conductor[0], size, c.hidden) for size in sizes)
    voices = ("melody", "bass", DRUMS)[: len(sizes)]
    with torch.device("meta"):
        model = MusicVAE(c, MusicSpec("voices", 256, 4, 16, voices, (0,) * len(sizes)))
    assert sum(p.numel() for p in model.parameters()) == expected
    assert expected / 1e6 == pytest.approx(millions, rel=0.06)


@pytest.mark.parametrize("decoder", ["flat", "hierarchical"])
def test_step_by_step_is_all_at_once(decoder: str) -> None:
    model, x = small(decoder=decoder), some()
    z = torch.randn(4, 3, dtype=torch.float64)
    whole = model.decoder(z, x)
    _, steps = model.decoder.unroll(z, 16, lambda t, v, logits: logits.argmax(-1), lambda t, values: x[:, t])
    torch.testing.assert_close(steps, whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("decoder", ["flat", "hierarchical"])
def test_a_step_sees_the_past_alone(decoder: str) -> None:
    model, x = small(decoder=decoder), some()
    z = torch.randn(4, 3, dtype=torch.float64)
    before = model.decoder(z, x)
    for t in (0, 3, 4, 11):
        changed = x.clone()
        changed[:, t] = (changed[:, t] + 1) % 14
        after = model.decoder(z, changed)
        assert torch.equal(before[:, : t + 1], after[:, : t + 1])
        assert not torch.equal(before[:, t + 1], after[:, t + 1])
        if decoder == "hierarchical":  # a bar knows of those before it the last value alone
            behind = 4 * (t // 4) + 4
            if t % 4 != 3:
                assert torch.equal(before[:, behind:], after[:, behind:])
            assert torch.equal(before[:, behind + 4 :], after[:, behind + 4 :])


def test_bars_come_from_the_conductor() -> None:
    model = small(decoder="hierarchical")
    assert isinstance(model.decoder, Hierarchical)
    z = torch.randn(2, 3, dtype=torch.float64)
    bars = model.decoder.bars(z, 4)
    assert bars.shape == (2, 4, 7)
    assert not torch.equal(bars[:, 0], bars[:, 1])
    assert torch.equal(model.decoder.bars(z, 2), bars[:, :2])


def test_the_loss_is_its_equation() -> None:
    model, x = small(beta=0.3, beta_rate=0.99, free_bits=2.0), some()
    rng = BatchRng(0, total=4)
    loss, logs = model.loss(Batch.of(x), rng, NOW)
    mean, std = model.posterior(x)
    z = mean + std * rng.normal("latent", 3)
    nats = model.log_prob(model.decoder(z, x), x)
    kl = gaussian_kl(mean, std).sum(1)
    beta = 0.3 * (1 - 0.99**100)
    expected = (beta * (kl - 2 * math.log(2)).clamp(min=0) - nats).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logs["kl"].item() == pytest.approx(kl.mean().item(), rel=1e-6)
    free, _ = small(beta=0.3, free_bits=1e6).loss(Batch.of(x), rng, NOW)
    assert free.item() == pytest.approx(-nats.mean().item(), rel=1e-6)


def test_scheduled_sampling_from_true_to_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small(scheduled=10.0), some()
    rng, z = BatchRng(0, total=4), torch.randn(4, 3, dtype=torch.float64)
    true = model.decoder(z, x)
    late = model.outputs(z, x, rng, Progress(10_000, 10_000))
    assert not torch.allclose(late, true)
    early = small(scheduled=1e9).outputs(z, x, rng, Progress(0, 10))
    torch.testing.assert_close(early, true, atol=1e-12, rtol=0)


def test_the_bound_is_below_the_truth_and_rises() -> None:
    spec = MusicSpec("voices", 2, 4, 2, ("melody",), (0,), 48, 60)
    model = small(spec)
    x = torch.tensor([[[3], [0]], [[1], [5]]])
    bounds = [
        model.log_likelihood(Batch.of(x.repeat(50, 1, 1)), rng=SampleRng(0, range(100)), samples=k).nats.mean().item()
        for k in (1, 20)
    ]
    z = torch.randn(20_000, 3, dtype=torch.float64)
    truth = []
    for one in x:
        nats = model.log_prob(model.decoder(z, one.expand(len(z), -1, -1)), one.expand(len(z), -1, -1)).double()
        truth.append((torch.logsumexp(nats, 0) - math.log(len(z))).item())
    assert bounds[0] <= bounds[1] <= np.mean(truth) + 0.01


def test_one_hot_of_nothing_is_zero() -> None:
    hot = one_hot(torch.tensor([[[-1, 2]]]), (3, 4))
    assert hot.tolist() == [[[0, 0, 0, 0, 0, 1, 0]]]


@pytest.mark.parametrize("decoder", ["flat", "hierarchical"])
def test_it_learns_a_few_tunes_by_heart(decoder: str) -> None:
    data = tunes("test", MusicOptions(length=16, lowest=45, highest=88))
    made = build(
        MusicVAE,
        MusicVAEConfig(decoder, 8, (48,), (64,), (48,), beta=0.0),  # type: ignore[arg-type]
        data.spec,
    )
    assert isinstance(made, MusicVAE)
    batch = data.batch(np.arange(12))
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for step in range(600):
        loss, _ = made.loss(batch, BatchRng(step, total=12), NOW)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    z = made.encode(batch)
    assert (made.decode(z).x == batch.x).float().mean() > 0.9
    assert (made.predict(batch) == batch.x).float().mean() > 0.95


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="kind=voices"):
        MusicVAE(MusicVAEConfig(), MusicSpec("events", 16, encoding="musenet", size=9))
    with pytest.raises(UsageError, match="no whole bars"):
        MusicVAE(MusicVAEConfig("hierarchical"), MusicSpec("voices", 18, 4, 16, ("melody",), (0,)))
    for wrong in ({"encoder": ()}, {"hidden": (3, 4)}, {"beta": -1.0}, {"beta_rate": 1.0}, {"latent_dims": 0}):
        with pytest.raises(ValueError):
            MusicVAEConfig(**wrong)  # type: ignore[arg-type]
