"""The world model: sizes, mixtures, dreams, practice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from castalia import recipes
from castalia.configuration import Budget
from castalia.core.data import Batch
from castalia.core.errors import RunError, UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.episode import EpisodeSpec
from castalia.evaluation import dreams
from castalia.media.episode.read import EpisodeOptions
from castalia.media.episode.sets import open_set, paddles
from castalia.media.episode.table import Episodes
from castalia.models.worlds import playing
from castalia.models.worlds.networks import Controller, Memory, Outlook, Vision
from castalia.models.worlds.settings import WorldModelConfig, WorldSampling
from castalia.models.worlds.world_model import WorldModel
from castalia.training.loop import train

CARS = EpisodeSpec(64, 3, 64, 64, ("steer", "gas", "brake"), (-1, 0, 0), (1, 1, 1), "carracing")
TINY = recipes.tiny("world-model").config
assert isinstance(TINY, WorldModelConfig)


def made(seed: int = 0, **changes: object) -> WorldModel:
    """A model whose controller does something."""
    model = build(WorldModel, replace(TINY, **changes), spec(), seed)  # type: ignore[arg-type]
    assert isinstance(model, WorldModel)
    with torch.no_grad():
        model.controller.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def spec() -> EpisodeSpec:
    return stretches().spec


def stretches(length: int = 8) -> Episodes:
    return open_set("paddle", EpisodeOptions(length=length, size=16, episodes=16), "train", None, None)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# sizes


def test_sizes_are_the_papers() -> None:
    with torch.device("meta"):
        cars = WorldModel(WorldModelConfig(), CARS)
        doom_spec = replace(CARS, actions=("move",), low=(-1,), high=(1,), environment="")
        settings = WorldModelConfig(latents=64, hidden=512, controller="z+h+c", bias=False, ends=True, practice="dream")
        doom = WorldModel(settings, doom_spec)
    assert count(cars.vision) == 4_348_547
    assert count(cars.memory) == 422_368
    assert count(cars.controller) == 867
    assert count(doom.vision) == 4_446_915
    assert count(doom.controller) == 1_088
    # the paper's 1,678,785 have an input more, which says that an episode began anew
    assert count(doom.memory) == 1_678_785 - 4 * 512
    assert recipes.recipe("world-model-carracing").config == WorldModelConfig()


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="size=64"):
        Vision(3, 60, (32, 64, 128, 256), (5, 5, 6, 6), 8)
    with pytest.raises(UsageError, match="square"):
        WorldModel(WorldModelConfig(), replace(CARS, height=32))
    with pytest.raises(UsageError, match="takes 1 numbers"):
        WorldModel(WorldModelConfig(), replace(CARS, environment="paddle"))
    for wrong in (
        {"widths": (8,), "kernels": (6, 6)},
        {"latents": 0},
        {"population": 3},
        {"sigma": 0.0},
        {"train": ()},
        {"train": ("vision", "vision")},
        {"practice": "dream"},
        {"error_weight": -1.0},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            WorldModelConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="walk"):
        WorldSampling(walk=-1)


# memory


def outlook(*shape: int, kind: torch.dtype = torch.float64) -> Outlook:
    random = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn(*shape, generator=random, dtype=kind) for _ in range(3))
    return Outlook(a.log_softmax(-1), b, 0.5 * c, None, None)


def test_the_density_is_that_of_a_mixture() -> None:
    after = outlook(7, 4, 5)
    mixture = MixtureSameFamily(Categorical(logits=after.log_weights), Normal(after.mean, after.log_std.exp()))
    z = 3 * torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert (after.nats(z) + mixture.log_prob(z)).abs().max() < 1e-6
    assert torch.allclose(after.expected(), mixture.mean)
    assert torch.allclose(-after.nats(z).sum(-1), Independent(mixture, 1).log_prob(z))


def test_draws_have_the_mixtures_law_and_temperature() -> None:
    after = outlook(1, 3, 4)
    n, random = 200_000, torch.Generator().manual_seed(0)
    uniform, noise = torch.rand(n, 3, generator=random).double(), torch.randn(n, 3, generator=random).double()
    wide = Outlook(*(p.expand(n, 3, 4) for p in (after.log_weights, after.mean, after.log_std)), None, None)  # type: ignore[arg-type]
    for tau in (1.0, 0.5, 1.3):
        weights = (after.log_weights / tau).softmax(-1)
        law = MixtureSameFamily(Categorical(weights), Normal(after.mean, math.sqrt(tau) * after.log_std.exp()))
        drawn = wide.drawn(uniform, noise, tau)
        assert (drawn.mean(0) - law.mean[0]).abs().max() < 0.02
        assert (drawn.var(0) / law.variance[0] - 1).abs().max() < 0.03
    cold = wide.drawn(uniform, noise, 0.0)
    best = after.mean.gather(-1, after.log_weights.argmax(-1, keepdim=True))[..., 0]
    assert torch.equal(cold, best.expand(n, 3))
    assert (wide.drawn(uniform, noise, 1e-6) - best).abs().max() < 0.02


def test_the_lstm_is_torchs_with_one_bias() -> None:
    memory, lstm = Memory(3, 2, 6, 4, False, False), nn.LSTM(5, 6, batch_first=True)
    with torch.no_grad():
        memory.bias.normal_()
        lstm.weight_ih_l0.copy_(memory.inward)
        lstm.weight_hh_l0.copy_(memory.round)
        lstm.bias_ih_l0.copy_(memory.bias)
        lstm.bias_hh_l0.zero_()
    z, a = torch.randn(4, 7, 3), torch.randn(4, 7, 2)
    h, (last, cell) = memory(z, a)
    wanted, (last2, cell2) = lstm(torch.cat([z, a], -1))
    assert torch.allclose(h, wanted)
    assert torch.allclose(last, last2[0])
    assert torch.allclose(cell, cell2[0])
    state = memory.begin(4)
    steps = []
    for t in range(7):
        one, state = memory(z[:, t : t + 1], a[:, t : t + 1], state)
        steps.append(one)
    assert torch.allclose(torch.cat(steps, 1), h, atol=1e-6)


def test_what_comes_after_an_end_is_not_learnt() -> None:
    data = stretches(24)
    model = build(WorldModel, TINY, data.spec)
    assert isinstance(model, WorldModel)
    batch = model.coded(data).batch(np.arange(8))
    assert batch.extra["dones"][:, :-1].any()
    rng = BatchRng(0, total=8)
    loss = model.memory_loss(batch, rng, Progress(0, 1))[0]
    over = torch.cat([torch.zeros(8, 1, dtype=torch.uint8), batch.extra["dones"][:, :-1]], 1).bool()
    changed = replace(
        batch,
        x=torch.where(over[..., None], 3.0, batch.x),
        extra={**batch.extra, "rewards": torch.where(over, 9.0, batch.extra["rewards"])},
    )
    assert torch.allclose(model.memory_loss(changed, rng, Progress(0, 1))[0], loss)
    there = replace(batch, x=torch.where(over[..., None], batch.x, 3.0))
    assert not torch.allclose(model.memory_loss(there, rng, Progress(0, 1))[0], loss)


# vision


def test_kl_costs_nothing_below_the_floor() -> None:
    batch = stretches().batch(np.arange(4))
    rng = BatchRng(3, total=4)
    free, dear = made(free_bits=1e3), made(free_bits=0.0)
    (a, logs), (b, _) = (m.vision_loss(batch, rng, Progress(0, 1)) for m in (free, dear))
    assert torch.allclose(a, 10 * logs["error"] + 1e3 * 8)
    assert torch.allclose(b, 10 * logs["error"] + logs["kl"])
    a.backward()
    assert free.vision.log_var.weight.grad is not None  # still by the error


def test_vision_sees_no_frame_behind_an_end() -> None:
    data = stretches(32)
    batch = data.batch(np.arange(8))
    model = build(WorldModel, replace(TINY, frames=64), data.spec)
    assert isinstance(model, WorldModel)
    last = (batch.extra["dones"] == 0).sum(1)
    seen = batch.x.clone()
    for i, t in enumerate(last.tolist()):
        seen[i, t + 1 :] = 255
    seen[last == 32] = batch.x[last == 32]
    rng = BatchRng(0, total=8)
    one, other = (model.vision_loss(replace(batch, x=x), rng, Progress(0, 1))[0] for x in (batch.x, seen))
    assert (seen != batch.x).any()
    assert torch.equal(one, other)


# controllers


def test_many_controllers_at_once_are_each_itself() -> None:
    for bias in (True, False):
        many = torch.randn(5, 2 * 3 + 2 * bias)
        told = torch.randn(5, 3)
        one = Controller(3, 2, bias)
        together = one.acts(told, many)
        for i in range(5):
            with torch.no_grad():
                one.take(many[i])
            assert torch.equal(one.numbers(), many[i])
            assert torch.allclose(one.acts(told[i : i + 1])[0], together[i], atol=1e-6)


def test_a_score_does_not_depend_on_who_plays_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(controller="z+h+c")
    many = torch.randn(3, model.controller.size, generator=torch.Generator().manual_seed(0))
    seeds = [5, 6, 7, 8]
    whole = playing.in_world(model, many, seeds)
    assert whole.shape == (3, 4)
    assert len(np.unique(whole)) > 1
    monkeypatch.setattr(playing, "QUICK_LANES", 5)
    assert np.array_equal(playing.in_world(model, many, seeds), whole)
    with torch.no_grad():
        model.controller.take(many[1])
    assert np.array_equal(model.score(seeds), whole[1])
    short = playing.in_world(model, many, seeds, steps=5)
    assert (short == 0).all()  # no ball is down yet


def test_a_controller_is_told_what_its_kind_says() -> None:
    z, state = torch.randn(2, 8), (torch.randn(2, 24), torch.randn(2, 24))
    for kind, wanted in (("z", [z]), ("z+h", [z, state[0]]), ("z+h+c", [z, *state])):
        model = made(controller=kind)
        assert torch.equal(model.told(z, state), torch.cat(wanted, -1))
        assert model.controller.weight.shape[1] == model.config.told
    assert made(controller="z").told(z, state).shape == (2, 8)


def test_actions_in_the_datas_ranges() -> None:
    unit = torch.tensor([[-1.0, -1.0, -1.0], [0.5, 0.5, 0.5]])
    cars = build(WorldModel, replace(TINY, kernels=(6, 6)), replace(CARS, height=16, width=16))
    assert isinstance(cars, WorldModel)
    assert cars.in_range(unit).tolist() == [[-1, 0, 0], [0.5, 0.75, 0.5]]
    own = replace(CARS, height=16, width=16, environment="", low=(-2, 0, 0), high=(2, 1, 4))
    mine = build(WorldModel, TINY, own)
    assert isinstance(mine, WorldModel)
    assert mine.in_range(unit).tolist() == [[-2, 0, 0], [1, 0.75, 3]]
    with pytest.raises(UsageError, match=r"practice=dream"):
        playing.in_world(mine, None, [1])


def test_evolution_finds_who_wins_more() -> None:
    """What is told is the paddle's world itself, so that only evolution is tried."""

    class Seeing(WorldModel):
        def told(self, z: torch.Tensor, state: object) -> torch.Tensor:
            world = playing._world("paddle", self.lanes, 16)
            alive = torch.from_numpy(np.flatnonzero(~world.over))  # type: ignore[attr-defined]
            x = torch.stack([torch.tensor(world.x - world.paddle), torch.tensor(world.speed)], -1)  # type: ignore[attr-defined]
            full = torch.zeros(len(x), self.config.told)
            full[:, :2] = 5 * x.float()
            return full[alive]

        lanes = 12 * 8

    model = build(Seeing, replace(TINY, controller="z", population=12, rollouts=8, sigma=0.5), spec())
    assert isinstance(model, Seeing)
    logs = [model.evolve(None, BatchRng(i, total=1), Progress(i, 20)) for i in range(20)]  # type: ignore[arg-type]
    assert float(logs[-1]["fitness"]) > float(logs[0]["fitness"]) + 1
    assert torch.allclose(model.controller.numbers().double(), model.search.mean, atol=1e-6)


# dreams


def test_dreams_are_shared_and_do_not_need_each_other() -> None:
    model = made()
    many = torch.randn(4, model.controller.size, generator=torch.Generator().manual_seed(0))
    whole = playing.in_dream(model, many, BatchRng(1, total=3), 3, 8, 1.0)
    assert np.allclose(playing.in_dream(model, many[2:3], BatchRng(1, total=3), 3, 8, 1.0), whole[2:3], atol=1e-5)
    assert not np.allclose(playing.in_dream(model, many, BatchRng(2, total=3), 3, 8, 1.0), whole)


def test_a_dream_counts_rewards_while_it_lasts() -> None:
    model = made()
    numbers = model.controller.numbers()[None]
    with torch.no_grad():
        model.memory.out.weight.zero_()
        model.memory.out.bias.zero_()
        model.memory.out.bias[-2:] = torch.tensor([2.0, 0.0])  # reward 2, an end with probability a half
    won = playing.in_dream(model, numbers, BatchRng(0, total=4), 4, 5, 1.0)
    assert won[0] == pytest.approx(2 * (1 + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16))
    lasting = made(rewards=False)
    with torch.no_grad():
        lasting.memory.out.weight.zero_()
        lasting.memory.out.bias.zero_()
    assert playing.in_dream(lasting, numbers, BatchRng(0, total=4), 4, 3, 1.0)[0] == pytest.approx(1.75)


def test_a_dream_that_is_over_stays_as_it_is() -> None:
    model = made()
    with torch.no_grad():
        model.memory.out.bias[-1] = 1.0
    drawn = model.sample(64, rng=SampleRng(0, range(64)))
    dones = drawn.extra["dones"]
    assert (dones[:, 1:] >= dones[:, :-1]).all()
    first = dones.argmax(1)
    assert dones.any()
    for i, t in enumerate(first.tolist()):
        if dones[i].any():
            assert (drawn.x[i, t:] == drawn.x[i, t]).all()
            assert not drawn.extra["rewards"][i, t + 1 :].any()
            assert not drawn.extra["actions"][i, t + 1 :].any()


def test_a_dream_begins_where_it_is_told_and_acts_as_it_is_told() -> None:
    model, batch = made(), stretches().batch(np.arange(4))
    drawn = model.sample(4, {"start": batch.x[:, 0]}, rng=SampleRng(0, range(4)))
    assert torch.equal(drawn.x[:, 0], batch.x[:, 0])
    assert torch.equal(drawn.extra["start"], batch.x[:, 0])
    options = WorldSampling(act="random", walk=0.2)
    random = model.sample(4, rng=SampleRng(0, range(4)), options=options)
    other = model.sample(4, rng=SampleRng(0, range(4)), options=WorldSampling(act="random", walk=0.0))
    assert not torch.equal(random.extra["actions"], drawn.extra["actions"])
    still = other.extra["dones"] == 0
    assert (other.extra["actions"][:, :, 0] == other.extra["actions"][:, :1, 0])[still].all()


def test_what_is_imagined_follows_what_was_seen_and_done() -> None:
    model, batch = made(), stretches().batch(np.arange(4))
    rng = SampleRng(0, range(4))
    found = model.imagined(batch, 3, rng=rng)
    assert found.shape == (4, 5, 3, 16, 16)
    later = replace(batch, x=torch.cat([batch.x[:, :3], 255 - batch.x[:, 3:]], 1))
    assert torch.equal(model.imagined(later, 3, rng=rng), found)  # it does not see them
    other = {**batch.extra, "actions": batch.extra["actions"].clone()}
    other["actions"][:, 5] += 1.0
    moved = model.imagined(replace(batch, extra=other), 3, rng=rng)
    assert torch.equal(moved[:, :3], found[:, :3])
    assert not torch.equal(moved[:, 3:], found[:, 3:])
    part = model.imagined(batch[2:3], 3, rng=SampleRng(0, [2]))
    assert (part.int() - found[2:3].int()).abs().max() <= 1


def test_beginnings_are_kept_in_turn() -> None:
    model, data = made(starts=10), stretches()
    coded = model.coded(data)
    for step in range(3):
        batch = coded.batch(np.arange(4 * step, 4 * step + 4))
        model.keep(batch, BatchRng(0, total=4), Progress(step, 3))
    assert int(model.starts.filled) == 10
    mean = coded.batch(np.arange(12)).x[:, 0, :8]
    assert torch.allclose(model.starts.mean, torch.cat([mean[10:], mean[2:10]]))
    halves = made(starts=10)
    for step in range(3):
        for start in (0, 2):
            batch = coded.batch(np.arange(4 * step + start, 4 * step + start + 2))
            halves.keep(batch, BatchRng(0, total=4, start=start, rows=2), Progress(step, 3))
    assert torch.allclose(halves.starts.mean, model.starts.mean)


# runs


def test_a_controller_of_its_own_in_a_world_that_was_learnt(tmp_path: Path) -> None:
    base, data = (
        recipes.tiny("world-model"),
        open_set("paddle", recipes.tiny("world-model").data.options, "train", None, None),
    )
    short = replace(base.training, steps=12, threads=1, precision="float32")
    world = train(replace(base, training=short), data, tmp_path / "world", quiet=True)
    alone = replace(TINY, controller="z", train=("controller",), population=6)
    recipe = replace(base, config=alone, training=replace(short, steps=2), parents=(("world", str(world.path)),))
    run = train(recipe, data, tmp_path / "z", quiet=True)
    one, other = world.model()[0], run.model()[0]
    assert isinstance(one, WorldModel)
    assert isinstance(other, WorldModel)
    for part in ("vision", "memory", "starts"):
        for name, value in getattr(one, part).state_dict().items():
            assert torch.equal(value, getattr(other, part).state_dict()[name]), name
    assert other.controller.weight.shape == (1, 8)
    assert int(other.search.generation) == 2
    with pytest.raises(RunError, match="latents"):
        train(replace(recipe, config=replace(alone, latents=9)), data, tmp_path / "wrong", quiet=True)
    dreaming = replace(recipe, config=replace(alone, practice="dream", controller="z+h"))
    assert train(dreaming, data, tmp_path / "dream", quiet=True).metrics()[-1]["stage"] == "controller"


def test_a_reservoir_is_not_trained(tmp_path: Path) -> None:
    base, data = recipes.tiny("world-model"), paddles()
    config = replace(TINY, train=("vision", "controller"))
    stages = {"vision": Budget(steps=3), "controller": Budget(steps=1)}
    run = train(
        replace(base, config=config, training=replace(base.training, stages=stages)), data, tmp_path / "r", quiet=True
    )
    fresh = build(WorldModel, config, data.spec, 0)
    model = run.model()[0]
    assert isinstance(model, WorldModel)
    assert isinstance(fresh, WorldModel)
    assert torch.equal(model.memory.round, fresh.memory.round)
    assert not torch.equal(model.vision.mean.weight, fresh.vision.mean.weight)
    assert [s.name for s in model.stages()] == ["vision", "controller"]
    assert all(isinstance(o, Objective) for o in model.stages()[0].objectives)


# measured


def test_what_is_measured_of_dreams() -> None:
    model, data = made(), stretches(16)
    found = dreams.dreams(model, data, np.arange(6))
    assert {"frame_mse", "memory_nats", "dream_mse_1", "dream_mse_8", "dream_mse_8_floor"} <= set(found)
    assert "dream_mse_16" not in found

    class Knowing:
        """One who shows what is there."""

        device = torch.device("cpu")

        def reconstructed(self, frames: torch.Tensor) -> torch.Tensor:
            return frames

        def imagined(self, batch: Batch, context: int, **_: object) -> torch.Tensor:
            return batch.x[:, context:]

        def foreseen(self, batch: Batch) -> torch.Tensor:
            return torch.zeros(len(batch), dtype=torch.float64)

        def score(self, seeds: list[int], steps: int = 0) -> np.ndarray:
            return np.arange(len(seeds), dtype=np.float64)

    known = dreams.dreams(Knowing(), data, np.arange(6))
    assert all(known[f"dream_mse_{k}"].value == 0 for k in (1, 2, 4, 8))
    assert known["dream_mse_4_ceiling"].value > known["dream_mse_1_ceiling"].value > 0
    assert dreams.score(Knowing(), data.spec)["score"].value == 49.5
    assert dreams.score(Knowing(), CARS) == {}
    assert dreams.score(Knowing(), replace(CARS, environment="")) == {}
