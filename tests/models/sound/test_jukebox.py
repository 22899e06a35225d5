"""Jukebox: its autoencoders, its priors, and sampling in windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.spec import LabelSpec
from castalia.core.specs.audio import AudioSpec
from castalia.core.specs.text import TextSpec
from castalia.models.sound.codec import Level, largest, spectral_convergence, spectral_loss
from castalia.models.sound.jukebox import Jukebox, JukeboxConfig, JukeboxSampling
from castalia.models.sound.prior import Known

COLUMNS = (("speaker", LabelSpec(("x", "y"))), ("caption", TextSpec("bytes", 257, 4)))
SPEC = AudioSpec(8000, 1, 128, columns=COLUMNS)
RESOLUTION = (64, 16, 64)


def small(spec: AudioSpec = SPEC, **config: Any) -> Jukebox:
    settings = {
        "downs": (2, 4),
        "width": 8,
        "depth": 1,
        "codes": 16,
        "dims": 4,
        "resolutions": (RESOLUTION,),
        "context": (16, 8),
        "row": (4, 2),
        "prior_dim": (16, 16),
        "prior_layers": (3, 3),
        "prior_heads": 2,
        "letters": 4,
        **config,
    }
    made = build(Jukebox, JukeboxConfig(**settings), spec)
    assert isinstance(made, Jukebox)
    return made.eval()


def sound(n: int = 2, size: int = 128) -> torch.Tensor:
    return 0.5 * torch.randn(n, 1, size, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)


def known(n: int = 2) -> Known:
    return Known(torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64), torch.full((n, 4), 97))


def test_codes_are_one_for_each_hop() -> None:
    model = small()
    x = sound()
    assert [level.codes(x).shape[1] for level in model.levels] == [32, 8]
    assert model.again(sound(1, 100), 1).shape == (1, 1, 100)
    assert [level.sound(level.codes(x)).shape for level in model.levels] == [x.shape] * 2


def test_gradients_pass_straight_through() -> None:
    """Of what the encoder found they are those of what the decoder was given."""
    level = Level(1, 2, 8, 1, 3, 16, 4, 0.99, 0.0).double()
    x = sound().double()
    z = level.encoder(x).detach().requires_grad_(True)
    rows = z.transpose(1, 2).flatten(0, 1)
    book = level.quantiser.vectors(level.quantiser.nearest(rows)).view(2, -1, 4).transpose(1, 2)
    given = book.detach().requires_grad_(True)
    (straight,) = torch.autograd.grad((level.decoder(z + (book - z).detach()) - x).square().sum(), z)
    (direct,) = torch.autograd.grad((level.decoder(given) - x).square().sum(), given)
    torch.testing.assert_close(straight, direct)
    assert level.through(x)[0].shape == x.shape


def test_losses_on_spectra_and_extremes() -> None:
    x = sound()
    assert spectral_loss(x, x, [RESOLUTION]).item() == pytest.approx(0, abs=1e-6)
    assert spectral_loss(x, torch.zeros_like(x), [RESOLUTION]).item() == pytest.approx(1, abs=1e-3)
    assert spectral_convergence(x, torch.zeros_like(x), RESOLUTION).abs().max() < 0.01
    near, far = (spectral_convergence(x, x + s * sound(2), RESOLUTION).mean() for s in (0.01, 0.3))
    assert near < far < 0
    error = torch.tensor([[[1.0, -3.0, 2.0, 0.0]]])
    assert largest(error, 2).item() == pytest.approx(6.5)


def test_the_codec_learns_and_uses_its_codes() -> None:
    model = small(restart=0.5).train()
    t = torch.arange(128) / 8000
    x = torch.stack([0.5 * torch.sin(2 * torch.pi * f * t) for f in torch.linspace(200, 3000, 32)])[:, None]
    batch = Batch.of(x)
    model.power.copy_(x.square().mean())
    stage = model.stages()[0]
    optimizer = torch.optim.Adam(stage.objectives[0].module.parameters(), 5e-3)
    first = last = 0.0
    for step in range(120):
        loss, logs = model.codec_loss(batch, BatchRng(step, total=32), Progress(step, 120))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        use = model.follow(batch, BatchRng(step, total=32), Progress(step, 120))
        first, last = (logs["error0"].item() if step == 0 else first), logs["error0"].item()
    assert last < 0.5 * first
    assert use["used0"] > 0.9


@pytest.mark.parametrize("level", [0, 1])
def test_a_code_sees_those_before_it_and_all_above(level: int) -> None:
    model = small()
    prior, n = model.prior(level), 2
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (n, prior.context), generator=g)
    above = torch.randint(0, 16, (n, prior.context // 4), generator=g) if level == 0 else None
    when = torch.full((n, 3), 0.5)
    before, letters = prior(codes, known(), when, above)
    for t in (0, 1, 5, 7):
        changed = codes.clone()
        changed[:, t] = (changed[:, t] + 3) % 16
        after, _ = prior(changed, known(), when, above)
        assert torch.equal(before[:, :t], after[:, :t])
    assert letters.shape == (n, 4 if level == 1 else 0)
    others = [prior(codes, Known(known().speaker + 1, known().label, known().words), when, above)[0]]
    others.append(prior(codes, known(), when + 0.3, above)[0])
    if level == 1:
        others.append(prior(codes, Known(known().speaker, known().label, known().words + 1), when, None)[0])
    if above is not None:
        others.append(prior(codes, known(), when, (above + 1) % 16)[0])
    assert not any(torch.allclose(before, other) for other in others)


def test_the_cache_is_one_pass() -> None:
    """Codes drawn greedily step by step are the likeliest of a pass over them all."""
    model = small()
    options = JukeboxSampling(temperature=0.0)
    when = torch.full((2, 3), 0.5)
    begun = torch.zeros(2, 0, dtype=torch.int64)
    codes = model._window(1, begun, 8, known(), when, None, SampleRng(0, range(2)), options)
    logits = model.prior(1).through(model.prior(1).inputs(codes[:, :-1], known(), when, None))
    best = logits[:, model.prior(1).front - 1 :, :16].argmax(-1)
    assert torch.equal(best, codes)


def test_windows_go_on_where_the_last_ended() -> None:
    model = small()
    rng = SampleRng(0, range(2))
    short = model.sample(2, rng=rng, options=JukeboxSampling(length=128))
    long = model.sample(2, rng=rng, options=JukeboxSampling(length=500))
    assert short.x.shape == (2, 1, 128)
    assert long.x.shape == (2, 1, 500)
    assert long.x.abs().max() <= 1


def test_prompts_come_back_and_upsampling_keeps_the_top() -> None:
    model = small()
    prompt = sound(2, 96).clamp(-1, 1)
    made = model.sample(2, {"prompt": prompt}, rng=SampleRng(0, range(2)), options=JukeboxSampling(length=64)).x
    assert made.shape == (2, 1, 160)
    assert torch.equal(made[..., :80], prompt[..., :80])
    again = model.sample(2, {"prompt": prompt}, rng=SampleRng(0, range(2)), options=JukeboxSampling(upsample=True)).x
    assert again.shape == prompt.shape
    with pytest.raises(UsageError, match="prompt"):
        model.sample(2, rng=SampleRng(0, range(2)), options=JukeboxSampling(upsample=True))


def test_what_makes_no_sense() -> None:
    for wrong in ({"downs": (4, 2)}, {"context": (8,)}, {"prior_heads": 3}, {"codec_share": 1.0}, {"context": (15, 8)}):
        with pytest.raises(ValueError):
            small(**wrong)
    with pytest.raises(UsageError, match="shorter"):
        small(AudioSpec(8000, 1, 8))
