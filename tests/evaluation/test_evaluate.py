import json
import threading
from dataclasses import replace

import pytest
import torch

from castalia.configuration import Data, Recipe, Training
from castalia.core.errors import RunError, UsageError
from castalia.core.model import build
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.core.weights import save_tensors
from castalia.estimators.metric import Metric
from castalia.evaluation.evaluate import context, evaluate, record
from castalia.evaluation.feature_network import FeatureSettings, feature_space
from castalia.models.autoencoders.vae import VAE, VAEConfig
from castalia.models.diffusion.ddpm import DDPM, DDPMConfig
from castalia.nn.unet import UNetConfig
from castalia.runs import create, open_run

from .toys import Pictures, random_pictures

SPEC = ImageSpec(1, 4, 4)


def make_run(path, **changes):
    config = VAEConfig(network="dense", latent_dims=2, widths=(8,), **changes)
    run = create(path, Recipe("vae", config, Data("toys"), Training(steps=1)), SPEC, "toys-40")
    model = build(VAE, config, SPEC)
    save_tensors(run.weights, model.state_dict(), {"castalia.step": "12"})
    return open_run(path)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture
def data():
    return random_pictures(40, SPEC.shape)


def test_everything_that_a_vae_can_do(run, data):
    out = evaluate(run, data, split="test", samples=3, baselines=True, train=random_pictures(50, SPEC.shape, seed=4))
    assert set(out) == {
        "nll", "bits_per_dim", "elbo", "kl", "active_units", "mse", "psnr", "sampling_speed", "likelihood_speed",
        "baseline_pixels_nll", "baseline_pixels_bits_per_dim", "baseline_mixture_nll", "baseline_mixture_bits_per_dim",
    }  # fmt: skip
    assert out["bits_per_dim"].unit == out["baseline_pixels_bits_per_dim"].unit == "bits/dim of binary values"
    assert all(m.n == 40 for name, m in out.items() if name not in ("sampling_speed", "likelihood_speed"))
    assert out["nll"].value <= out["elbo"].value + 1e-9 or out["nll"].value == pytest.approx(out["elbo"].value, abs=0.1)
    assert not (run.path / "results.json").exists()


def test_eight_bit_likelihoods_give_plain_bits(tmp_path, data):
    out = evaluate(make_run(tmp_path / "run", likelihood="logistic", mixtures=2), data, split="test", samples=1)
    assert out["bits_per_dim"].unit == "bits/dim"


def test_baselines_stand_beside_a_likelihood_over_the_same_values(tmp_path):
    """Drawings in black and white: a model of them knows two values, and so do its baselines."""
    config = DDPMConfig(unet=UNetConfig(channels=(8, 8), blocks=1, attention=(), groups=4), timesteps=40)
    run = create(tmp_path / "run", Recipe("ddpm", config, Data("toys"), Training(steps=1)), SPEC, "toys")
    drawings = Pictures(255 * (random_pictures(60, SPEC.shape).x > 127).to(torch.uint8))
    model = build(DDPM, config, SPEC)
    model.initialise(drawings, BatchRng(0, total=1), {})
    save_tensors(run.weights, model.state_dict(), {"castalia.step": "1"})
    out = evaluate(open_run(run.path), drawings, split="test", samples=2, baselines=True, train=drawings)
    assert out["nll"].unit == out["baseline_mixture_nll"].unit == "nats of 2 values"
    assert out["bits_per_dim"].unit == out["baseline_pixels_bits_per_dim"].unit
    assert out["baseline_pixels_bits_per_dim"].value == pytest.approx(1.0, abs=0.15)
    assert "elbo" not in out


def test_the_same_seed_gives_the_same_numbers(run, data):
    a, b, c = (evaluate(run, data, split="test", samples=3, seed=seed) for seed in (1, 1, 2))
    for speed in ("sampling_speed", "likelihood_speed"):
        del a[speed], b[speed]
    assert a == b
    assert a["nll"].value != c["nll"].value


def test_limit_takes_a_random_subset_and_says_so(run, data):
    out = evaluate(run, data, split="test", samples=2, limit=10)
    assert out["nll"].n == out["mse"].n == 10
    assert out["nll"].detail.startswith("10 random examples of 40")
    assert context(run, data, out, split="test", seconds=1.0)["preprocessing"].startswith("dynamic binarisation")


def test_two_records_at_once_lose_nothing(run, data):
    """Each reads the table, adds to it and replaces it: without a lock one would overwrite what the other added."""
    number = Metric(1.0, "nats", "exact", 40, 0, None, "")
    where = context(run, data, {"nll": number}, split="test", seconds=1.0)
    names = [f"m{i}" for i in range(8)]
    threads = [threading.Thread(target=record, args=(run, {name: number}, where)) for name in names]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(run.results()["metrics"]) == set(names)


def test_data_of_another_shape_is_refused_with_advice(run):
    with pytest.raises(UsageError, match=r"4x4 with 1 channel, .* 8x8 with 3 channels.*size=\(4, 4\)"):
        evaluate(run, random_pictures(5, (3, 8, 8)), split="test")
    with pytest.raises(UsageError, match="no examples"):
        evaluate(run, random_pictures(0, SPEC.shape), split="test")
    with pytest.raises(UsageError, match="training data"):
        evaluate(run, random_pictures(5, SPEC.shape), split="test", baselines=True)
    with pytest.raises(UsageError, match="limit"):
        evaluate(run, random_pictures(5, SPEC.shape), split="test", limit=0)


def test_samples_are_measured_where_asked_for(run, data):
    train, kept = random_pictures(50, SPEC.shape, seed=4), []
    space = feature_space(train, FeatureSettings(steps=3))
    out = evaluate(run, data, split="test", samples=2, limit=10, drawn=30, train=train, space=space, keep=kept.append)
    assert {"nll", "frechet", "frechet_floor", "kernel_ceiling", "coverage", "memorisation"} <= set(out)
    assert out["nll"].n == 10
    assert out["frechet"].detail.startswith("30 samples against 40 of toys; features: ")
    assert out["sampling_speed"].n == 30
    assert kept[0].drawn.x.shape == (30, *SPEC.shape)
    # how many examples of the data were measured is not how many were drawn
    assert context(run, data, out, split="test", seconds=1.0)["n"] == 10
    stored = record(run, out, context(run, data, out, split="test", seconds=1.0))
    assert stored["metrics"]["frechet_ceiling"] == out["frechet_ceiling"].to_json()
    with pytest.raises(UsageError, match="training data"):
        evaluate(run, data, split="test", samples=1, drawn=30)
    with pytest.raises(UsageError, match="drawn"):
        evaluate(run, data, split="test", samples=1, drawn=-1)


def test_results_are_recorded_merged_and_on_the_card(run, data):
    out = evaluate(run, data, split="test", samples=2)
    where = context(run, data, out, split="test", seconds=2.5)
    assert where["weights"].startswith("step 12, sha256 ")
    assert (where["n"], where["split"], where["data"]) == (40, "test", "toys")
    record(run, out, where)
    stored = json.loads((run.path / "results.json").read_text())
    assert stored["metrics"]["nll"] == out["nll"].to_json()
    card = (run.path / "README.md").read_text()
    assert "| nll |" in card

    again = record(run, {"extra": Metric(1.0, "things", "exact", 3, 0)}, where)
    assert {"nll", "extra"} <= set(again["metrics"])
    assert "earlier" not in again


def test_another_split_does_not_mix_with_the_old_numbers(run, data):
    metric = {"nll": Metric(1.0, "nats", "exact", 3, 0)}
    where = context(run, data, metric, split="test", seconds=1.0)
    record(run, metric | {"old": metric["nll"]}, where)
    found = record(run, {"nll": replace(metric["nll"], value=2.0)}, where | {"split": "train"})
    assert set(found["metrics"]) == {"nll"}
    assert found["earlier"][0]["metrics"]["nll"]["value"] == 1.0
    assert found["earlier"][0]["context"]["split"] == "test"


def test_samples_drawn_in_another_way_do_not_mix(run, data):
    number = Metric(1.0, "things", "exact", 3, 0)
    where = context(run, data, {"nll": number}, split="test", seconds=1.0)
    record(run, {"nll": number}, where)
    few = where | {"sampling": {"options": {"steps": 5}, "features": "own"}}
    assert "earlier" not in record(run, {"frechet": number, "precision": number}, few)
    assert record(run, {"elbo": number}, where)["context"]["sampling"] == few["sampling"], "still there"
    many = where | {"sampling": {"options": {"steps": 50}, "features": "own"}}
    found = record(run, {"frechet": replace(number, value=2.0)}, many)
    assert set(found["metrics"]) == {"nll", "elbo", "frechet"}, "no precision of other samples beside it"
    assert found["context"]["sampling"] == many["sampling"]
    assert set(found["earlier"][0]["metrics"]) == {"nll", "elbo", "frechet", "precision"}
    fresh = record(run, {"nll": number}, where | {"weights": "step 99"})
    assert "sampling" not in fresh["context"]
    assert set(fresh["metrics"]) == {"nll"}


def test_a_damaged_results_file_is_not_overwritten(run, data):
    (run.path / "results.json").write_text("[1, 2]")
    with pytest.raises(RunError):
        record(run, {"nll": Metric(1.0, "nats", "exact", 3, 0)}, {"split": "test"})
    assert (run.path / "results.json").read_text() == "[1, 2]"


def test_broken_weights_record_nothing(run, data):
    tensors = {k: torch.full_like(v, 1e30) for k, v in run.model()[0].state_dict().items()}
    save_tensors(run.weights, tensors)
    from castalia.core.errors import NonFiniteError

    with pytest.raises(NonFiniteError, match="40 of 40"):
        evaluate(run, data, split="test", samples=2)
    assert not (run.path / "results.json").exists()
