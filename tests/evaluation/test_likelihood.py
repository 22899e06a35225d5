import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from castalia.core.capabilities import Density, Likelihood
from castalia.core.errors import NonFiniteError, UsageError
from castalia.evaluation.likelihood import batch_rows, label_gain, latent_use, log_likelihoods, measure, two_phase
from tests.tools import Table

from .toys import LinearGaussian, all_ids, random_pictures


def test_exact_posterior_gives_the_closed_form_marginal():
    data, model = random_pictures(40), LinearGaussian()
    out = measure(model, data, all_ids(data), samples=7)
    expected = -float(model.truth(data.x).mean())
    assert out["nll"].value == pytest.approx(expected, abs=1e-6)
    assert out["elbo"].value == pytest.approx(expected, abs=1e-6)
    assert out["bits_per_dim"].value == pytest.approx(expected / (4 * math.log(2)))
    assert out["bits_per_dim"].unit == "bits/dim"
    assert out["nll"].kind == "bound (importance weighted, K = 7)"
    assert out["nll"].detail == "none (8-bit values)"
    assert out["elbo"].kind == "bound (K = 1)"


def test_bound_tightens_with_samples_and_never_beats_the_truth_in_the_mean():
    data, model = random_pictures(200), LinearGaussian(wide=2.0)
    truth = -float(model.truth(data.x).mean())
    values = [measure(model, data, all_ids(data), samples=k)["nll"].value for k in (1, 10, 200)]
    assert values[0] > values[1] > values[2] > truth - 0.02
    assert values[2] == pytest.approx(truth, abs=0.05)
    assert values[0] > truth + 0.3


def test_result_does_not_depend_on_the_batch_size():
    data, model = random_pictures(23), LinearGaussian(wide=2.0)
    ids = all_ids(data)
    one = log_likelihoods(model, data, ids, samples=3, rows=1).nats
    many = log_likelihoods(model, data, ids, samples=3, rows=10).nats
    assert torch.allclose(one, many, rtol=0, atol=1e-12)
    other_seed = log_likelihoods(model, data, ids, samples=3, seed=1).nats
    assert not torch.allclose(one, other_seed)
    part = log_likelihoods(model, data, ids[5:9], samples=3).nats
    assert torch.allclose(part, many[5:9], rtol=0, atol=1e-12)


def test_memory_is_bounded():
    from castalia.core.specs.image import ImageSpec

    assert batch_rows(ImageSpec(3, 4096, 4096), 1) == 1
    assert batch_rows(ImageSpec(1, 28, 28), 5000) * 5000 <= 1 << 17
    assert batch_rows(ImageSpec(1, 28, 28), 1) == 256


def test_what_a_label_is_worth():
    """A model to which the label says half of a nat for each of four values; and one that must be told it."""

    class Told(LinearGaussian):
        label_optional = True

        def log_likelihood(self, batch, *, rng, samples=1):
            found = super().log_likelihood(batch, rng=rng, samples=samples)
            return replace(found, nats=found.nats + (2.0 if batch.label is not None else 0.0))

    data = random_pictures(30)
    assert label_gain(Told(kind="exact"), data, all_ids(data)) == {}, "no labels"
    labelled = Table(data.x, data.spec, torch.zeros(30, dtype=torch.int64))
    found = label_gain(Told(kind="exact"), labelled, all_ids(data))["label_gain"]
    assert found.value == pytest.approx(2 / (4 * math.log(2)))
    assert (found.unit, found.n) == ("bits/dim", 30)
    assert label_gain(LinearGaussian(kind="exact"), labelled, all_ids(data)) == {}, "it must be told"


def test_exact_models_are_asked_once_and_have_no_elbo():
    data, model = random_pictures(30), LinearGaussian(kind="exact")
    out = measure(model, data, all_ids(data), samples=100, refine=10)
    assert set(out) == {"nll", "bits_per_dim"}
    assert out["nll"].kind == "exact"
    assert model.asked == [(30, 1)]


class RandomTerms(Density):
    """A bound of which ``samples`` random terms are drawn, as in a diffusion model: there is no other bound."""

    def __init__(self):
        self.asked = []

    def log_likelihood(self, batch, *, rng, samples=1):
        self.asked.append(samples)
        terms = torch.stack([rng.at("term", i).normal("term").double() for i in range(samples)])
        return Likelihood(-80 + 20 * terms.mean(0), "bound", f"{samples} random terms", "none (17 values)", (0, 255))


def test_random_terms_of_one_bound_have_no_elbo():
    """Shown beside ``nll``, the same number with one term alone looks like another one, at times like a better one."""
    data, model = random_pictures(30), RandomTerms()
    out = measure(model, data, all_ids(data), samples=100)
    assert set(out) == {"nll", "bits_per_dim"}
    assert out["nll"].value == pytest.approx(80, abs=2)
    assert model.asked == [100]
    assert out["nll"].unit == "nats of 2 values"
    assert out["bits_per_dim"].unit == "bits/dim of 2 values"
    assert set(measure(model, data, all_ids(data), samples=200, refine=10)) == {"nll", "bits_per_dim"}


def test_non_finite_examples_are_counted_not_dropped():
    class Broken(LinearGaussian):
        def log_likelihood(self, batch, *, rng, samples=1):
            found = super().log_likelihood(batch, rng=rng, samples=samples)
            nats = found.nats.clone()
            nats[batch.x.flatten(1)[:, 0] > 200] = -math.inf
            return Likelihood(nats, found.kind, found.detail, found.preprocessing)

    data = random_pictures(50)
    bad = int((data.x.flatten(1)[:, 0] > 200).sum())
    assert bad > 0
    with pytest.raises(NonFiniteError, match=f"{bad} of 50 examples"):
        measure(Broken(), data, all_ids(data))


def test_two_phase_equals_the_full_mean_when_all_are_chosen():
    g = np.random.default_rng(0)
    cheap, fine = g.normal(size=50), g.normal(size=50)
    value, (low, high) = two_phase(cheap, np.arange(50), fine)
    assert value == pytest.approx(fine.mean())
    # nothing is added by choosing: only the spread of the expensive number is left
    assert high - low == pytest.approx(2 * 1.96 * fine.std(ddof=1) / math.sqrt(50), rel=1e-9)


def test_two_phase_is_unbiased_and_its_interval_covers():
    g = np.random.default_rng(1)
    covered, errors = 0, []
    for _ in range(1000):
        fine = g.normal(loc=5.0, scale=2.0, size=400)
        cheap = fine + 1.0 + g.normal(scale=0.5, size=400)  # biased by one nat
        chosen = np.sort(g.permutation(400)[:40])
        value, (low, high) = two_phase(cheap, chosen, fine[chosen])
        errors.append(value - 5.0)
        covered += low <= 5.0 <= high
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(1000)
    assert 0.92 < covered / 1000 < 0.975
    # far better than the 40 alone
    assert np.std(errors) < 0.5 * 2.0 / math.sqrt(40)


def test_two_phase_measurement_agrees_with_the_full_one_over_seeds():
    data, model = random_pictures(300), LinearGaussian(wide=1.5)
    ids, errors, covered = all_ids(data), [], 0
    for seed in range(20):
        full = measure(model, data, ids, samples=200, seed=seed)["nll"]
        quick = measure(model, data, ids, samples=200, refine=60, seed=seed)["nll"]
        errors.append(quick.value - full.value)
        covered += quick.interval[0] <= full.value <= quick.interval[1]
    assert quick.kind == "estimate of the K = 200 bound"
    assert "K = 2 on 300 examples, corrected by K = 200 on 60 of them" in quick.detail
    assert quick.n == 300
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(20)
    assert np.std(errors) < 0.15
    assert covered >= 18


def test_wrong_options_are_refused():
    data, model = random_pictures(20), LinearGaussian()
    for options in ({"samples": 0}, {"refine": 3}, {"refine": -1}):
        with pytest.raises(UsageError):
            measure(model, data, all_ids(data), **options)
    with pytest.raises(UsageError, match="no examples"):
        measure(model, data, all_ids(data)[:0])


def test_binary_bits_are_named_as_such():
    class Binary(LinearGaussian):
        def log_likelihood(self, batch, *, rng, samples=1):
            found = super().log_likelihood(batch, rng=rng, samples=samples)
            return Likelihood(found.nats, found.kind, found.detail, "dynamic binarisation (...)")

    data = random_pictures(10)
    out = measure(Binary(), data, all_ids(data), samples=1)
    assert out["bits_per_dim"].unit == "bits/dim of binary values"
    assert out["nll"].unit == out["elbo"].unit == "nats of binary values"
    assert "dynamic binarisation" in out["nll"].detail


def test_progress_tells_the_time_left():
    data, lines = random_pictures(600), []
    measure(LinearGaussian(), data, all_ids(data), samples=2, show=lines.append)
    assert lines[-1] == "likelihood, K = 2: 600 of 600, 0 s left"
    assert any(": 256 of 600, " in line and line.endswith(" left") for line in lines)


def test_active_units_and_kl():
    class OneUsed(LinearGaussian):
        def encode(self, batch, *, rng=None):
            z = super().encode(batch)
            return torch.stack([z[:, 0], 0.05 * torch.tanh(z[:, 1])], 1)

        def posterior_kl(self, batch):
            return torch.tensor([[1.5, 0.001]]).expand(len(batch), 2)

    data = random_pictures(100)
    out = latent_use(OneUsed(), data, all_ids(data))
    assert out["active_units"].value == 1
    assert out["kl"].value == pytest.approx(1.501)
    assert out["kl"].interval == pytest.approx((1.501, 1.501))
    assert "1 of 2 dimensions" in out["kl"].detail


def test_latents_that_are_functions_of_the_example_have_no_kl():
    class Inverted(LinearGaussian):
        def posterior_kl(self, batch):
            return torch.full((len(batch), 2), torch.inf)

    data = random_pictures(100)
    assert set(latent_use(Inverted(), data, all_ids(data))) == {"active_units"}
