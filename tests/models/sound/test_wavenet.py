"""WaveNet: what a sample depends on, that likelihoods are likelihoods, and that queues compute what the network does."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.sampling import Preview
from castalia.core.spec import LabelSpec
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.clips import AudioClips
from castalia.media.audio.hearing import pitch
from castalia.media.audio.sets import vowels
from castalia.models.sound.queues import AHEAD, Queues
from castalia.models.sound.stack import pack
from castalia.models.sound.streams import WaveNetSampling
from castalia.models.sound.voice import SPEAKER, Voice
from castalia.models.sound.wavenet import NOTHING, PIECE, WaveNet, WaveNetConfig, counted
from castalia.nn.samples import LEVELS, Logistics, MuLaw, sample_distribution
from castalia.recipes import wavenet as recipes

SPEC = AudioSpec(8000, 1, 256, ("a", "i", "u"))
SMALL = WaveNetConfig(blocks=2, layers=4, kernel=2, channels=8, skip=16, mixtures=3)
SHAPES = [
    SMALL,
    replace(SMALL, blocks=1, layers=8, kernel=3),  # dilations beyond what is computed ahead
    replace(SMALL, kernel=4, output="mixture"),
    replace(SMALL, blocks=3, layers=1, conditional=False),
]


def made(config: WaveNetConfig = SMALL, spec: AudioSpec = SPEC) -> WaveNet:
    """A network with random labels and confident outputs: at its start all would be alike."""
    model = build(WaveNet, config, spec)
    assert isinstance(model, WaveNet)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        if model.network.label is not None:
            model.network.label.weight.normal_(std=0.5, generator=g)
        model.network.out.weight.mul_(4)
        if config.output == "mixture":
            model.network.out.bias[2 * config.mixtures :] = -3.0
    return model.eval()


def sound(n: int, length: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(n, 1, length, generator=g)).clamp(-1, 1)


# what a sample depends on


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_nothing_depends_on_what_comes_later(config):
    model, x = made(config), sound(1, 60)
    values = model.values.values(x[:, 0])
    label = torch.tensor([1]) if model.classes else None
    before = model.network(values, label)
    assert before.shape == (1, model.values.maps, 61)
    for t in (0, 17, 59):
        other = values.clone()
        other[0, t] = model.values.values(-x[:, 0, t] + 0.4)[0]
        after = model.network(other, label)
        assert torch.equal(after[..., : t + 1], before[..., : t + 1])
        assert not torch.equal(after[..., t + 1], before[..., t + 1])


@pytest.mark.parametrize(
    ("blocks", "layers", "kernel", "field"), [(1, 3, 2, 9), (2, 3, 2, 16), (1, 3, 3, 16), (2, 2, 4, 20), (4, 1, 2, 6)]
)
def test_the_receptive_field_ends_where_it_says(blocks, layers, kernel, field):
    """By gradients: nothing from beyond it, and something from its very end."""
    config = replace(SMALL, blocks=blocks, layers=layers, kernel=kernel, output="mixture")
    assert config.field == field
    model = made(config).double()
    values = sound(1, 40).double()[:, 0].requires_grad_()
    model.network(values, torch.tensor([0]))[0, :, -1].square().sum().backward()
    gradient = values.grad[0].abs()
    assert (gradient[: 40 - field] == 0).all()
    assert (gradient[40 - field :] > 0).all()


def test_published_receptive_fields():
    """Of the layers alone 1024 and 4093 samples, the current one included; the first convolution adds one."""
    assert WaveNetConfig(blocks=1, layers=10, kernel=2).field == 1024 + 1
    assert WaveNetConfig(blocks=4, layers=10, kernel=2).field == 4093 + 1


# likelihoods


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_probabilities_of_the_next_sample_sum_to_one(config):
    model = made(config)
    codes = config.output == "softmax"
    every = torch.arange(256) if codes else torch.arange(-LEVELS, LEVELS) / LEVELS
    start = model.values.values(sound(1, 20)[:, 0])
    outputs = model.network(start, torch.tensor([2]) if model.classes else None)[:, :, -1:]
    nats = model.values.log_prob(outputs.expand(-1, -1, len(every)).double(), every[None])
    assert torch.logsumexp(nats, 1).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("scale", [-11.9, -8.0, -3.0, 1.0])
def test_mixture_bins_sum_to_one_at_any_width(scale):
    outputs = torch.tensor([0.3, -0.7, 0.999, -0.2, scale, scale + 0.5])[None, :, None]
    every = torch.arange(-LEVELS, LEVELS)[None] / LEVELS
    nats = Logistics(2).log_prob(outputs.expand(1, 6, 2 * LEVELS), every).double()
    assert torch.logsumexp(nats, 1).exp().item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("name", ["softmax", "mixture"])
def test_draws_follow_the_probabilities(name):
    values = sample_distribution(name, 3)
    g = np.random.default_rng(0)
    outputs = g.standard_normal((1, values.maps)).astype(np.float32)
    if name == "mixture":
        outputs[0, 6:] = [-6.0, -5.5, -5.0]
        outputs[0, 3:6] *= 0.3
    n = 30_000
    uniform = g.random((n, values.draws)).astype(np.float32)
    drawn = values.draw(np.repeat(outputs, n, 0), uniform, 1.0)
    every = torch.arange(256) if name == "softmax" else torch.arange(-LEVELS, LEVELS) / LEVELS
    nats = values.log_prob(torch.from_numpy(outputs)[:, :, None].expand(1, values.maps, len(every)), every[None])
    expected = nats[0].double().exp().cumsum(0).numpy()
    found = np.searchsorted(np.sort(drawn), every.numpy(), side="right") / n
    assert np.abs(found - expected).max() < 0.012
    for temperature in (0.0, 0.7, 1.0):  # a stream alone takes other steps
        many = values.draw(np.repeat(outputs, 300, 0), uniform[:300], temperature)
        assert [values.draw_one(outputs[0], u, temperature) for u in uniform[:300].tolist()] == many.tolist()


def test_temperature_sharpens_and_zero_takes_the_mode():
    g = np.random.default_rng(0)
    outputs, uniform = g.standard_normal((1, 256)).astype(np.float32), g.random((4000, 1)).astype(np.float32)
    many = np.repeat(outputs, 4000, 0)
    mode = outputs.argmax()
    assert (MuLaw().draw(many, uniform, 0.0) == mode).all()
    shares = [(MuLaw().draw(many, uniform, t) == mode).mean() for t in (0.2, 0.5, 1.0, 3.0)]
    assert shares == sorted(shares, reverse=True)
    mixture = np.array([[0.0, 1.0, -0.5, 0.5, -4.0, -4.0]], np.float32)
    noise = g.random((2000, 2)).astype(np.float32)
    assert (Logistics(2).draw(np.repeat(mixture, 2000, 0), noise, 0.0) == 0.5).all()
    narrow, wide = (Logistics(2).draw(np.repeat(mixture, 2000, 0), noise, t) for t in (0.3, 1.0))
    assert (narrow > 0).mean() > (wide > 0).mean()
    assert narrow[narrow > 0].std() < wide[wide > 0].std()


def test_measured_in_stretches_is_measured_whole(monkeypatch):
    model, x = made(), sound(3, 3000)
    batch = Batch.of(x, torch.tensor([0, 1, 2]), {"length": torch.tensor([3000, 1700, 5])})
    whole = model.log_likelihood(batch, rng=SampleRng(0, range(3)))
    assert whole.kind == "exact"
    assert whole.nats.dtype == torch.float64
    monkeypatch.setattr("castalia.models.sound.wavenet.AT_ONCE", 10)
    parts = model.log_likelihood(batch, rng=SampleRng(0, range(3)))
    torch.testing.assert_close(parts.nats, whole.nats, rtol=1e-6, atol=1e-4)
    alone = model.log_likelihood(Batch.of(x[2:, :, :5], torch.tensor([2])), rng=SampleRng(0, [0]))
    torch.testing.assert_close(alone.nats, whole.nats[2:], rtol=1e-6, atol=1e-5)


def test_loss_is_the_likelihood_per_sample():
    model, x = made(), sound(2, 100)
    batch = Batch.of(x, torch.tensor([0, 2]), {"length": torch.tensor([100, 40]), "start": torch.tensor([0, 0])})
    loss, logs = model.loss(batch, BatchRng(0, total=2), Progress(0, 1))
    nats = model.log_likelihood(batch, rng=SampleRng(0, range(2))).nats
    assert loss.item() == pytest.approx(-nats.sum().item() / 200, rel=1e-5)
    assert logs["bits_per_sample"].item() == pytest.approx(-nats.sum().item() / 140 / math.log(2), rel=1e-5)
    halves = [model.loss(batch[i : i + 1], BatchRng(0, total=1), Progress(0, 1))[0] for i in range(2)]
    assert sum(halves).item() / 2 == pytest.approx(loss.item(), rel=1e-5)  # two processes


def test_a_crop_counts_only_what_has_its_past():
    model, x = made(), sound(1, 400)
    field = model.config.field
    crop = Batch.of(x[:, :, 100:300], torch.tensor([1]), {"length": torch.tensor([200]), "start": torch.tensor([100])})
    mask = counted(crop, field)
    assert mask.sum() == 200 - field
    loss, _ = model.loss(crop, BatchRng(0, total=1), Progress(0, 1))
    ends = [
        model.log_likelihood(Batch.of(x[:, :, :end], torch.tensor([1])), rng=SampleRng(0, [0])).nats.item()
        for end in (100 + field, 300)
    ]
    assert loss.item() == pytest.approx((ends[0] - ends[1]) / 200, rel=1e-4)
    short = replace(crop, extra={"length": torch.tensor([40]), "start": torch.tensor([100])})
    assert counted(short, 1000).sum() == 20  # half of it is past enough
    padded = Batch.of(x, None, {"length": torch.tensor([7])})
    assert counted(padded, field).sum() == 7


def test_starts_from_the_model_of_independent_samples():
    data = vowels()
    for output in ("softmax", "mixture"):
        model = build(WaveNet, replace(SMALL, output=output), data.spec)
        model.initialise(data, BatchRng(0, total=1), {})
        batch = data.batch(np.arange(12))
        nats = model.log_likelihood(batch, rng=SampleRng(0, range(12))).nats.sum().item()
        found = -nats / batch.extra["length"].sum().item() / math.log(2)
        if output == "softmax":
            codes = np.concatenate(
                [model.values.values(torch.from_numpy(data.clip(i) / 32768)).numpy() for i in range(12)]
            )
            shares = np.bincount(codes[:, 0], minlength=256) / len(codes)
            entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
            assert abs(found - entropy) < 0.6
        else:
            assert 12 < found < 15.5  # of sixteen


# sample by sample


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_queues_compute_what_the_network_computes(config):
    """Over 600 samples that are given to both, within 1e-4."""
    model = made(config)
    x = sound(2, 600)
    values, label = model.values.values(x[:, 0]), torch.tensor([2, 0]) if model.classes else None
    expected = model.network(values, label).detach().numpy()
    queues = Queues(pack(model.network), 2, model._condition(Voice(label), 2))
    codes = config.output == "softmax"
    given = np.concatenate([np.full((2, 2), NOTHING if codes else 0), values.numpy()], axis=1)
    worst = 0.0
    for t in range(601):
        newest, older = given[:, t + 1], given[:, t]
        packed = queues.packed
        if codes:
            parts = packed.now[newest], packed.before[older]
        else:
            parts = (
                v[:, None].astype(np.float32) * table for v, table in ((newest, packed.now), (older, packed.before))
            )
        worst = max(worst, float(np.abs(queues.look(*parts) - expected[:, :, t]).max()))
    assert worst < 1e-4
    assert queues.packed.ring % AHEAD == 0


@pytest.mark.parametrize("config", SHAPES, ids=str)
@pytest.mark.parametrize("beginning", [0, 1, 150])
def test_streams_are_what_computing_everything_anew_gives(config, beginning):
    model, options = made(config), WaveNetSampling(length=120)
    given = {"prompt": sound(2, beginning)} if beginning else {}
    fast = model.sample(2, given, rng=SampleRng(3, range(2)), options=options)
    slow = model.naive(2, given, SampleRng(3, range(2)), options)
    assert fast.x.shape == (2, 1, beginning + 120)
    assert (fast.x - slow.x).abs().max() < 1e-4
    if beginning:
        torch.testing.assert_close(fast.x[..., :beginning], model.values.sound(model.values.values(given["prompt"])))


def test_pieces_laid_together_are_the_sample():
    model, options = made(), WaveNetSampling(length=PIECE + 230)
    given, rng = {"prompt": sound(2, 70), "label": torch.tensor([1, 2])}, SampleRng(0, range(2))
    seen: list[Preview] = []
    whole = model.sample(2, given, rng=rng, options=options, watch=seen.append)
    state = model.start(2, given, rng, options)
    pieces = []
    for _ in range(3):
        piece, state = model.advance(state)
        pieces.append(piece)
    with pytest.raises(StopIteration):
        model.advance(state)
    assert [p.shape[-1] for p in pieces] == [70, PIECE - 70, 300]
    assert torch.equal(torch.cat(pieces, 2), whole.x)
    assert [(p.step, p.steps) for p in seen] == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(seen[1].examples().x, whole.x[..., :PIECE])
    assert torch.equal(whole.label, given["label"])


def test_a_sound_can_be_taken_up_again_anywhere():
    """Randomness is addressed by the number of the sample: the same beginning goes on in the same way."""
    model, options, rng = made(), WaveNetSampling(length=PIECE + 200), SampleRng(5, range(2))
    label = torch.tensor([0, 1])
    whole = model.sample(2, {"label": label}, rng=rng, options=options).x
    for cut in (3, 500, PIECE, PIECE + 100):
        rest = WaveNetSampling(length=PIECE + 200 - cut)
        again = model.sample(2, {"label": label, "prompt": whole[..., :cut]}, rng=rng, options=rest).x
        assert torch.equal(again, whole)


def test_streams_do_not_know_each_other():
    model, options = made(), WaveNetSampling(length=300)
    many = model.sample(5, rng=SampleRng(2, range(5)), options=options)
    alone = model.sample(1, rng=SampleRng(2, [3]), options=options)
    assert torch.equal(many.x[3:4], alone.x)
    assert torch.equal(many.label[3:4], alone.label)
    assert not torch.equal(many.x[0], many.x[1])


def test_streams_are_in_full_precision_whatever_the_caller_has():
    model, given = made(), {"prompt": sound(1, 40), "label": torch.tensor([1])}
    plain = model.sample(1, given, rng=SampleRng(0, [0])).x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.sample(1, given, rng=SampleRng(0, [0])).x, plain)
        naive = model.naive(1, given, SampleRng(0, [0]), WaveNetSampling())
    assert (naive.x - plain).abs().max() < 1e-4


def test_queues_are_at_least_forty_times_as_fast():
    """At the size of the digits' recipe; far more on an idle machine (see the benchmarks)."""
    config = recipes.digits().config
    model = build(WaveNet, config, SPEC).eval()
    rng = SampleRng(0, [0])
    given = {"prompt": sound(1, config.field), "label": torch.tensor([0])}
    model.sample(1, given, rng=rng, options=WaveNetSampling(length=10))
    begun = time.process_time()
    model.sample(1, given, rng=rng, options=WaveNetSampling(length=1500))
    fast = (time.process_time() - begun) / 1500
    begun = time.process_time()
    model.naive(1, given, rng, WaveNetSampling(length=12))
    slow = (time.process_time() - begun) / 12
    assert slow / fast > 40


# labels, prompts, options


def test_labels_change_the_sound_and_missing_ones_are_drawn():
    model = made()
    x = sound(1, 50).expand(3, 1, 50)
    nats = model.log_likelihood(Batch.of(x, torch.arange(3)), rng=SampleRng(0, range(3))).nats
    assert len(set(nats.tolist())) == 3
    unknown = model.log_likelihood(Batch.of(x[:1]), rng=SampleRng(0, [0]))
    assert unknown.nats.item() == pytest.approx(torch.logsumexp(nats, 0).item() - math.log(3), abs=1e-6)
    assert set(model.accepts()) == {"label", "prompt"}
    with torch.no_grad():
        model.labels.shares.copy_(torch.tensor([0.0, 0.25, 0.75]))
    drawn = model.sample(400, rng=SampleRng(0, range(400)), options=WaveNetSampling(length=2)).label
    assert torch.bincount(drawn, minlength=3)[1:].tolist() == pytest.approx([100, 300], abs=40)
    assert drawn.min() > 0
    assert set(made(replace(SMALL, conditional=False)).accepts()) == {"prompt"}
    assert made(spec=AudioSpec(8000, 1, 64)).sample(1, rng=SampleRng(0, [0])).label is None


def test_lengths_are_samples_or_seconds():
    model = made()
    for length, samples in ((40, 40), (0.01, 80), (None, 256)):
        found = model.sample(1, rng=SampleRng(0, [0]), options=WaveNetSampling(length=length)).x
        assert found.shape == (1, 1, samples)
    assert model.cost(WaveNetSampling(length=100)) > 100
    with pytest.raises(ValueError, match="length"):
        WaveNetSampling(length=0)


def test_what_cannot_be_done_is_said():
    with pytest.raises(UsageError, match="mono"):
        build(WaveNet, SMALL, AudioSpec(8000, 2, 64))
    for wrong in ({"kernel": 1}, {"layers": 20}, {"channels": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            WaveNetConfig(**wrong)


# sizes, and learning


def test_sizes_of_the_recipes():
    def count(config: WaveNetConfig, classes: int) -> int:
        model = build(WaveNet, config, AudioSpec(16_000, 1, 100, tuple(map(str, range(classes)))))
        return sum(p.numel() for p in model.parameters())

    config = recipes.paper().config
    r, s, layers = 64, 256, 40
    layer = (2 * r * r * 2 + 2 * r) + (r * r + r)
    head = (layers * r * s + s) + (s * s + s) + (s * 256 + 256)
    assert count(config, 0) == 2 * 256 * r + layers * layer - (r * r + r) + head == 1_642_688
    assert count(recipes.tiny().config, 3) <= 50_000
    assert count(recipes.digits().config, 10) == 135_712


def test_learns_a_tone_and_goes_on_with_it():
    """A periodic sound has nothing left to guess: under a tenth of a bit, and the loudest path keeps the pitch."""
    t = np.arange(1600)
    wave = 0.6 * np.sin(2 * np.pi * t / 40) + 0.2 * np.sin(2 * np.pi * t / 20 + 1)
    pcm = np.rint(wave * 32767).astype(np.int16)[:, None]
    data = AudioClips(pcm, np.array([1600]), AudioSpec(8000, 1, 512), name="tone")
    model = build(WaveNet, WaveNetConfig(layers=5, channels=16, skip=32), data.spec)
    assert isinstance(model, WaveNet)
    model.initialise(data, BatchRng(0, total=1), {})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    steps = 160
    for step in range(steps):
        batch = data.batch(np.zeros(2, np.int64), BatchRng(step, total=2))
        loss, _ = model.loss(batch, BatchRng(step, total=2), Progress(step, steps))
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    tail = Batch.of(data.batch(np.array([0])).x, None, {"length": torch.tensor([1600])})
    bits = -model.log_likelihood(tail, rng=SampleRng(0, [0])).nats.item() / 1600 / math.log(2)
    assert bits < 0.1
    prompt = {"prompt": tail.x[..., :200]}
    more = model.sample(1, prompt, rng=SampleRng(0, [0]), options=WaveNetSampling(length=2800, temperature=0)).x[0, 0]
    assert pitch(more[1000:].numpy(), 8000) == pytest.approx(200, rel=0.03)


# voices, and sound of frames

VOICED = AudioSpec(8000, 1, 256, ("a", "i", "u"), columns=((SPEAKER, LabelSpec(("ann", "bob"))),))
VOCODER = replace(SMALL, mel=6, hop=16, layers=8, voices=True)


def voiced(config: WaveNetConfig) -> WaveNet:
    """A network that heeds speakers and frames from the start."""
    model = made(config, VOICED)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        model.network.speaker.weight.normal_(std=0.7, generator=g)
        if model.network.frames is not None:
            model.network.frames.weight.normal_(std=0.5, generator=g)
    return model.eval()


@pytest.mark.parametrize("beginning", [0, 37])
@pytest.mark.parametrize("rows", [1, 2])
def test_voices_and_frames_are_streamed_as_they_are_computed_anew(beginning, rows):
    model, options = voiced(VOCODER), WaveNetSampling()
    assert set(model.accepts()) == {"label", SPEAKER, "prompt", "mel"}
    given = {"mel": sound(rows, 130, 5), SPEAKER: torch.tensor([1, 0])[:rows]}
    given |= {"prompt": sound(rows, beginning)} if beginning else {}
    fast = model.sample(rows, given, rng=SampleRng(3, range(rows)), options=options)
    slow = model.naive(rows, given, SampleRng(3, range(rows)), options)
    assert fast.x.shape == (rows, 1, 130)  # as long as what is to be heard, the beginning included
    assert (fast.x - slow.x).abs().max() < 1e-4


def test_speakers_and_frames_are_heeded():
    model, options, rng = voiced(VOCODER), WaveNetSampling(length=60), SampleRng(0, range(2))
    base = {"label": torch.tensor([0, 0]), SPEAKER: torch.tensor([0, 0]), "mel": sound(2, 60, 5)}
    plain = model.sample(2, base, rng=rng, options=options).x
    for name, other in ((SPEAKER, torch.tensor([1, 1])), ("mel", sound(2, 60, 6))):
        assert not torch.equal(model.sample(2, {**base, name: other}, rng=rng, options=options).x, plain)


def test_likelihoods_given_frames_do_not_depend_on_the_stretches(monkeypatch):
    model = voiced(VOCODER)
    extra = {SPEAKER: torch.tensor([0, 1, 1]), "length": torch.tensor([300, 700, 512])}
    batch = Batch(sound(3, 700), torch.arange(3), torch.tensor([0, 1, 2]), extra)
    whole = model.log_likelihood(batch, rng=SampleRng(0, range(3)))
    assert "mel" in whole.detail
    monkeypatch.setattr("castalia.models.sound.wavenet.AT_ONCE", 400)
    torch.testing.assert_close(model.log_likelihood(batch, rng=SampleRng(0, range(3))).nats, whole.nats)
    alone = Batch(batch.x[1:2], batch.ids[1:2], batch.label[1:2], {k: v[1:2] for k, v in extra.items()})
    torch.testing.assert_close(model.log_likelihood(alone, rng=SampleRng(0, [1])).nats, whole.nats[1:2])


def test_what_is_heard_depends_on_the_past_only_beside_its_frames():
    model = voiced(VOCODER)
    values, frames = model.values.values(sound(1, 120)[:, 0]), torch.randn(1, 6, 8)
    outputs = model.network(values, None, torch.tensor([0]), frames)
    changed = values.clone()
    changed[:, 60:] = 7
    again = model.network(changed, None, torch.tensor([0]), frames)
    torch.testing.assert_close(again[..., :61], outputs[..., :61])
    assert not torch.equal(again[..., 61:], outputs[..., 61:])


def test_a_model_with_voices_refuses_data_without():
    with pytest.raises(UsageError, match="speakers"):
        voiced(replace(SMALL, voices=True)).log_likelihood(Batch(sound(1, 64), torch.arange(1)), rng=SampleRng(0, [0]))
