"""The note transformer: grids and events, that all probabilities sum to one, what it looks at, prompts, sizes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.music import FIRST, NOTHING, OFF, MusicSpec
from castalia.models.music.note_transformer import NoteSampling, NoteTransformer, NoteTransformerConfig
from castalia.recipes import note_transformer as recipes

SPEC = MusicSpec("voices", 4, 1, 2, ("melody",), (0,), 60, 61)
"""Four steps of two notes: four values a step, 256 grids."""
LONG = MusicSpec("voices", 16, 4, 16, ("melody",), (0,), 48, 71, classes=("a", "b"))
NOW = Progress(0, 10)


def small(spec: MusicSpec = SPEC, **config: Any) -> NoteTransformer:
    found = {"layers": 1, "dim": 16, "heads": 2, "hidden": 32, "dropout": 0.0, **config}
    made = build(NoteTransformer, NoteTransformerConfig(**found), spec, 0)
    assert isinstance(made, NoteTransformer)
    with torch.no_grad():  # as after some training: nothing is nearly even
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made.eval()


def grids(spec: MusicSpec = SPEC) -> torch.Tensor:
    return torch.tensor(list(product(range(spec.sizes[0]), repeat=spec.length)))[..., None]


def line(*values: int) -> torch.Tensor:
    return torch.tensor(values)[None, :, None]


def test_a_grid_is_its_events_and_back() -> None:
    model = small()
    events = model.events(line(FIRST, NOTHING, OFF, FIRST + 1))
    assert events.values.tolist() == [[FIRST, OFF, FIRST + 1]]
    assert events.durations.tolist() == [[2, 1, 1]]
    assert events.starts.tolist() == [[0, 2, 3]]
    every = grids()
    events = model.events(every)
    assert torch.equal(model.grid(events.values, torch.where(events.there, events.starts, 4), 4), every)
    assert bool((torch.where(events.there, events.durations, 0).sum(1) == 4).all())


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("timing", [True, False])
def test_the_probabilities_of_all_grids_sum_to_one(told: bool, timing: bool) -> None:
    model = small(told=told, timing=timing)
    with torch.no_grad():
        notes, durations = model.log_prob(grids(), model._label(None, 256))
    assert float((notes + durations).double().exp().sum()) == pytest.approx(1, abs=1e-5)
    nats = model.log_likelihood(Batch.of(grids()), rng=SampleRng(0, range(256))).nats
    torch.testing.assert_close(nats, (notes + durations).double())


def test_samples_are_as_frequent_as_they_are_likely() -> None:
    model, n = small(), 8000
    drawn = model.sample(n, rng=SampleRng(0, range(n))).x[..., 0]
    index = (drawn * torch.tensor([64, 16, 4, 1])).sum(1)
    found = torch.bincount(index, minlength=256).double()
    with torch.no_grad():
        share = sum(model.log_prob(grids(), model._label(None, 256))).double().exp()
    often = share * n >= 5
    chi = ((found - n * share).square() / (n * share))[often].sum()
    assert float(chi) < 1.5 * int(often.sum())
    assert float(found[~often].sum()) == pytest.approx(float(share[~often].sum()) * n, abs=60)


def test_an_event_sees_those_before_it_and_a_duration_its_note() -> None:
    model = small(LONG)
    grid = torch.randint(FIRST, LONG.sizes[0], (1, 16, 1), generator=torch.Generator().manual_seed(0))
    other = grid.clone()
    other[0, 9] = FIRST + (other[0, 9] - FIRST + 1) % 24
    label = model._label(None, 1)
    with torch.no_grad():
        a, b = (model.seen(model.events(x), label) for x in (grid, other))
    changed = (a - b).abs().amax(2)[0] > 0
    assert not changed[:10].any(), "event 9 is predicted at place 9"
    assert changed[10:].all()
    for told in (True, False):
        model, h = small(LONG, told=told), torch.randn(1, 1, 16)
        low, high = (model.duration_logits(h, torch.full((1, 1), v)) for v in (FIRST, FIRST + 5))
        assert torch.equal(low, high) is not told


def test_the_loss_is_nats_of_a_step() -> None:
    model = small(LONG, unknown=0.0)
    batch = Batch.of(torch.randint(0, LONG.sizes[0], (5, 16, 1)), torch.arange(5) % 2)
    loss, logs = model.loss(batch, BatchRng(0, total=5), NOW)
    nats = model.log_likelihood(batch, rng=SampleRng(0, range(5))).nats
    assert float(loss.detach()) == pytest.approx(-float(nats.mean()) / 16, rel=1e-5)
    torch.testing.assert_close(logs["notes"] + logs["durations"], loss.detach())
    nobody = model.log_likelihood(Batch.of(batch.x), rng=SampleRng(0, range(5))).nats
    assert not torch.allclose(nats, nobody)


def test_a_prompt_is_gone_on_with() -> None:
    """What was given comes back; a note that sounds at its end may sound on, and is then not struck again."""
    model, n = small(LONG), 64
    prompt = line(FIRST, NOTHING, NOTHING, FIRST + 4, NOTHING, *[FIRST] * 11).expand(n, -1, -1)
    five = NoteSampling(keep=5)
    made = model.sample(n, rng=SampleRng(0, range(n)), given={"prompt": prompt}, options=five).x
    assert made.shape == (n, 5 + 16, 1)
    assert torch.equal(made[:, :5], prompt[:, :5])
    assert (made[:, 5] == NOTHING).any()
    assert (made[:, 5] != NOTHING).any()
    whole = model.sample(n, rng=SampleRng(0, range(n)), given={"prompt": prompt}).x
    assert torch.equal(whole[:, :16], prompt)
    assert whole.shape == (n, 32, 1)
    options = NoteSampling(length=200, keep=5)
    long = model.sample(3, rng=SampleRng(0, range(3)), given={"prompt": prompt[:3]}, options=options).x
    assert long.shape == (3, 205, 1)
    assert ((long != NOTHING).sum(1) > 4).all()
    ragged = torch.cat([prompt[:1], line(FIRST, FIRST + 1, FIRST + 2, FIRST + 3, OFF, *[OFF] * 11)])
    both = model.sample(2, rng=SampleRng(0, range(2)), given={"prompt": ragged}, options=five).x
    assert torch.equal(both[:, :5], ragged[:, :5])
    alone = model.sample(1, rng=SampleRng(0, [1]), given={"prompt": ragged[1:]}, options=five).x
    assert torch.equal(both[1:], alone)


def test_a_held_note_lasts_as_likely_as_it_should() -> None:
    """Given that it sounds at step 1, how long it lasts is the duration's distribution from 2 on."""
    model, n = small(), 6000
    given = {"prompt": line(FIRST, NOTHING, FIRST, FIRST).expand(n, -1, -1)}
    made = model.sample(n, rng=SampleRng(0, range(n)), given=given, options=NoteSampling(keep=2)).x
    on = (made[:, 2:4, 0] == NOTHING).double()
    with torch.no_grad():
        h = model.seen(model.events(line(FIRST)), model._label(None, 1))[:, :1]
        lasts = model.duration_logits(h, torch.full((1, 1), FIRST))[0, 0].double().exp()
    beyond = lasts[1:] / lasts[1:].sum()
    assert float(on[:, 0].mean()) == pytest.approx(float(beyond[1:].sum()), abs=0.03)
    assert float((on[:, 0] * on[:, 1]).mean()) == pytest.approx(float(beyond[2:].sum()), abs=0.03)


def test_the_size_of_the_book() -> None:
    """One layer, 128 and 128 numbers beside one another, five heads of 256, 256 in the perceptron."""
    config = recipes.book().config
    spec = MusicSpec("voices", 128, 4, 16, ("melody",), (0,), 36, 79)
    with torch.device("meta"):
        model = NoteTransformer(config, spec)
    values = 2 + 44
    attention = 256 * 3 * 1280 + 3 * 1280 + 1280 * 256 + 256
    perceptron = 2 * 256 * 256 + 2 * 256
    wanted = (values + 128) * 128 + 256 + attention + perceptron + 3 * 512 + 257 * (values + 128)
    assert sum(p.numel() for p in model.parameters()) == wanted


def test_what_makes_no_sense() -> None:
    for wrong in ({"dim": 15}, {"heads": 3}, {"layers": 0}, {"dropout": 1.0}, {"inner": 3}):
        with pytest.raises(ValueError, match=r"must|divide|shares"):
            NoteTransformerConfig(**{"dim": 16, "heads": 2, **wrong})
    two = MusicSpec("voices", 16, 4, 16, ("melody", "bass"), (0, 32), 48, 71)
    with pytest.raises(UsageError, match="one voice"):
        build(NoteTransformer, NoteTransformerConfig(), two)
