"""SampleRNN: what a sample depends on, that stretches are the whole, and that steps compute what the network does."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.audio import AudioSpec
from castalia.media.audio.sets import vowels
from castalia.models.sound.samplernn import SampleRNN, SampleRNNConfig
from castalia.models.sound.streams import WaveNetSampling
from castalia.models.sound.tiers import Network, Steps, parameters_of, whole
from castalia.nn import mulaw
from castalia.recipes import samplernn as recipes

SPEC = AudioSpec(8000, 1, 128, ("a", "i", "u"))
SMALL = SampleRNNConfig(frames=(8, 2), dim=12, embedding=6, truncation=32)
SHAPES = [
    SMALL,
    replace(SMALL, frames=(8,), layers=2, conditional=False),
    replace(SMALL, frames=(16, 8, 2), truncation=16, levels="linear", weight_norm=False),
]


def made(config: SampleRNNConfig = SMALL, spec: AudioSpec = SPEC) -> SampleRNN:
    """A network with random first states and confident outputs: at its start all would be alike."""
    model = build(SampleRNN, config, spec)
    assert isinstance(model, SampleRNN)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tier in model.network.stack:
            tier.first.normal_(generator=g)
        for parameter in model.network.out.parameters():
            parameter.mul_(2)
    return model.eval()


def sound(n: int, length: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return (0.3 * torch.randn(n, 1, length, generator=g)).clamp(-1, 1)


def logits_of(model: SampleRNN, codes: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
    n = len(codes)
    silence = torch.full((n, model.config.frames[0]), mulaw.SILENCE)
    return model.network(silence, codes, model.network.begin(n), label)[0]


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_nothing_depends_on_itself_or_on_what_comes_later(config):
    model = made(config)
    codes = model.codes(sound(1, 64))
    label = torch.tensor([1]) if model.classes else None
    before = logits_of(model, codes, label)
    assert before.shape == (1, 64, 256)
    for t in (0, 7, 8, 31, 62):
        other = codes.clone()
        other[0, t] = (codes[0, t] + 100) % 256
        after = logits_of(model, other, label)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert not torch.equal(after[:, t + 1], before[:, t + 1])
        assert not torch.equal(after[:, -1], before[:, -1])  # a state forgets no sample


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_stretches_with_the_state_carried_are_the_whole(config):
    model = made(config)
    codes = model.codes(sound(3, 96))
    label = torch.arange(3) if model.classes else None
    expected = logits_of(model, codes, label)
    frame = config.frames[0]
    for size in (frame, 3 * frame if config.frames[0] < 16 else 2 * frame):
        state, parts = model.network.begin(3), []
        before = torch.full((3, frame), mulaw.SILENCE)
        for part in codes.split(size, 1):
            logits, state = model.network(before, part, state, label)
            parts.append(logits)
            before = part[:, -frame:]
        torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_one_pass_and_its_gradient_is_that_of_stretches():
    """The value knows nothing of the truncation; gradients of a first state end where its stretch does."""
    model, x = made(), sound(2, 96)
    batch = Batch.of(x, torch.tensor([0, 2]))
    loss, logs = model.loss(batch, BatchRng(0, total=2), Progress(0, 1))
    codes = model.codes(x)
    full = F.cross_entropy(logits_of(model, codes, batch.label).mT, codes, reduction="none")
    assert loss.item() == pytest.approx(full.mean().item(), rel=1e-5)
    assert logs["bits_per_sample"].item() == pytest.approx(full.mean().item() / math.log(2), rel=1e-5)
    first = [tier.first for tier in model.network.stack]
    found = torch.autograd.grad(loss, first)
    first_stretch = torch.autograd.grad(full[:, :32].sum() / full.numel(), first, retain_graph=True)
    everything = torch.autograd.grad(full.mean(), first)
    for ours, cut, whole_way in zip(found, first_stretch, everything, strict=True):
        torch.testing.assert_close(ours, cut, rtol=1e-4, atol=1e-7)
        assert (ours - whole_way).abs().max() > 1e-5 * whole_way.abs().max()


def test_the_state_that_is_handed_on_has_no_history(monkeypatch):
    """Memory does not grow with the number of stretches: each begins at leaves of the graph."""
    model, seen = made(), []
    scores = model._scores

    def watched(before, codes, state, label):
        seen.append([s.grad_fn for s in state])
        return scores(before, codes, state, label)

    monkeypatch.setattr(model, "_scores", watched)
    model.loss(Batch.of(sound(1, 50 * 32), torch.tensor([0])), BatchRng(0, total=1), Progress(0, 1))
    assert len(seen) == 50
    assert all(grad is None for state in seen[1:] for grad in state)
    assert any(grad is not None for grad in seen[0])  # the learned first state is in the first one's graph


@pytest.mark.parametrize("config", SHAPES, ids=str)
@pytest.mark.parametrize("beginning", [0, 1, 21, 64])
def test_steps_are_what_computing_everything_anew_gives(config, beginning):
    """Also where a prompt ends inside a frame."""
    model, options = made(config), WaveNetSampling(length=40)
    given = {"prompt": sound(2, beginning)} if beginning else {}
    fast = model.sample(2, given, rng=SampleRng(3, range(2)), options=options)
    slow = model.naive(2, given, SampleRng(3, range(2)), options)
    assert fast.x.shape == (2, 1, beginning + 40)
    assert (fast.x - slow.x).abs().max() < 1e-5
    assert len(fast.x[0].unique()) > 5
    if beginning:
        assert torch.equal(fast.x[..., :beginning], model.sound(model.codes(given["prompt"])))


def test_steps_give_the_logits_of_the_network():
    model = made(SHAPES[2])
    codes, label = model.codes(sound(2, 80)), torch.tensor([2, 0])
    expected = logits_of(model, codes, label).detach().numpy()
    steps, frame = Steps(model.network, 2, label), 16
    past = F.pad(codes, (frame, 0), value=mulaw.SILENCE).numpy()
    worst = 0.0
    with torch.no_grad():
        for t in range(80):
            if t % 2 == 0:
                steps.hear(t, past[:, t : t + frame])
            worst = max(worst, float(abs(steps.look(t, past[:, t : t + frame]) - expected[:, t]).max()))
    assert worst < 1e-4


def test_pieces_laid_together_are_the_sample_and_can_be_taken_up_again():
    model, rng, label = made(), SampleRng(5, range(2)), torch.tensor([0, 1])
    options = WaveNetSampling(length=model.piece + 200)
    whole_sound = model.sample(2, {"label": label}, rng=rng, options=options).x
    state, pieces = model.start(2, {"label": label}, rng, options), []
    for _ in range(2):
        piece, state = model.advance(state)
        pieces.append(piece)
    with pytest.raises(StopIteration):
        model.advance(state)
    assert torch.equal(torch.cat(pieces, 2), whole_sound)
    for cut in (3, 500, model.piece + 100):
        rest = WaveNetSampling(length=model.piece + 200 - cut)
        again = model.sample(2, {"label": label, "prompt": whole_sound[..., :cut]}, rng=rng, options=rest).x
        assert torch.equal(again, whole_sound)


def test_probabilities_of_all_sequences_sum_to_one():
    """Of an alphabet of three and sequences of four samples, over frames of 2."""
    torch.manual_seed(0)
    network = Network((2,), 8, 1, 3, 4, 1, 0, False).double()
    with torch.no_grad():
        network.out.weight.mul_(50)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    before = torch.ones(len(every), 2, dtype=torch.int64)
    wave = network.wave
    network.wave = lambda codes: wave(codes).double()  # type: ignore[method-assign]
    logits, _ = network(before, every, network.begin(len(every)), None)
    nats = -F.cross_entropy(logits.mT, every, reduction="none").sum(1)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert nats.exp().max() > 2 / 81  # and it is not the even one


def test_measured_in_stretches_is_measured_whole(monkeypatch):
    model, x = made(), sound(3, 5000)
    batch = Batch.of(x, torch.tensor([0, 1, 2]), {"length": torch.tensor([5000, 1700, 5])})
    found = model.log_likelihood(batch, rng=SampleRng(0, range(3)))
    assert found.kind == "exact"
    assert found.nats.dtype == torch.float64
    codes = model.codes(x)
    full = F.cross_entropy(logits_of(model, codes, batch.label).double().mT, codes, reduction="none")
    expected = [-full[i, :n].sum().item() for i, n in enumerate((5000, 1700, 5))]
    assert found.nats.tolist() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr("castalia.models.sound.samplernn.AT_ONCE", 10)
    torch.testing.assert_close(model.log_likelihood(batch, rng=SampleRng(0, range(3))).nats, found.nats)


def test_labels_change_the_sound_and_missing_ones_are_summed_over():
    model = made()
    x = sound(1, 48).expand(3, 1, 48)
    nats = model.log_likelihood(Batch.of(x, torch.arange(3)), rng=SampleRng(0, range(3))).nats
    assert len(set(nats.tolist())) == 3
    unknown = model.log_likelihood(Batch.of(x[:1]), rng=SampleRng(0, [0]))
    assert unknown.nats.item() == pytest.approx(torch.logsumexp(nats, 0).item() - math.log(3), abs=1e-6)
    same = {"prompt": sound(1, 20).expand(2, 1, 20), "label": torch.tensor([0, 2])}
    both = model.sample(2, same, rng=SampleRng(0, [7, 7]), options=WaveNetSampling(length=60)).x
    assert torch.equal(both[0, :, :20], both[1, :, :20])
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("levels", ["mulaw", "linear"])
def test_codes_come_back(levels):
    model = made(replace(SMALL, levels=levels))
    every = torch.arange(256)[None]
    assert torch.equal(model.codes(model.sound(every)), every)
    x = torch.linspace(-1, 1, 1001)[None, None]
    error = (model.sound(model.codes(x)) - x).abs()
    if levels == "linear":
        assert error.max() <= 1 / 256 + 1e-6
        assert model.sound(every)[0, 0].diff().allclose(torch.full((255,), 2 / 256), atol=1e-6)
    else:
        assert error[0, 0, 500:520].max() < 1 / 1000  # fine where it is quiet
    assert model.codes(torch.tensor([[[-1.0, 0.0, 1.0]]])).tolist()[0][1] == mulaw.SILENCE


def test_the_last_bias_is_the_model_of_independent_samples():
    data = vowels()
    model = build(SampleRNN, replace(SMALL, weight_norm=False), data.spec)
    model.initialise(data, BatchRng(0, total=1), {})
    with torch.no_grad():
        model.network.out.weight.zero_()
    batch = data.batch(torch.arange(12).numpy())
    bits = -model.log_likelihood(batch, rng=SampleRng(0, range(12))).nats.sum().item() / math.log(2)
    codes = torch.cat([model.codes(batch.x[i : i + 1, :, :n])[0] for i, n in enumerate(batch.extra["length"].tolist())])
    shares = torch.bincount(codes, minlength=256).double() / len(codes)
    entropy = torch.special.entr(shares).sum().item() / math.log(2)
    assert abs(bits / len(codes) - entropy) < 0.15


def test_sizes_of_the_papers_recipes():
    for recipe in (recipes.paper(), recipes.paper_three_tiers()):
        c = recipe.config
        assert isinstance(c, SampleRNNConfig)
        spec = AudioSpec(16_000, 1, 128 * 1024)
        with torch.device("meta"):
            plain = SampleRNN(replace(c, weight_norm=False), spec)
        found = sum(p.numel() for p in plain.parameters())
        assert found == parameters_of(c.frames, c.dim, c.layers, 256, c.embedding)
        assert recipe.data.options.length % c.truncation == 0
    # two tiers: three GRUs of 1,024 (18.9 million), 16 vectors of 1,024 up (16.8 million), the perceptron
    assert parameters_of((16,), 1024, 3, 256, 256) == 41_278_720
    assert parameters_of((8, 2), 1024, 1, 256, 256) == 20_808_960


def test_what_cannot_be_done_is_said():
    with pytest.raises(UsageError, match="mono"):
        build(SampleRNN, SMALL, AudioSpec(8000, 2, 64))
    wrong = ({"frames": (8, 3)}, {"frames": (2, 8)}, {"frames": ()}, {"frames": (8, 1)}, {"truncation": 12}, {"dim": 0})
    for settings in wrong:
        with pytest.raises(ValueError, match="frame"):
            replace(SMALL, **settings)
    assert [whole(n, 8) for n in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert set(made().accepts()) == {"label", "prompt"}
    assert set(made(SHAPES[1]).accepts()) == {"prompt"}
