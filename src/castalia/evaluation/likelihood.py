"""How likely a :class:`Density` finds examples: nats per example, bits per dimension, and of what kind.

A likelihood bound, an estimate and an exact likelihood are three different numbers, and so are those of
binary and of 8-bit pictures; ``kind`` and ``detail`` of each metric say which it is (Burda et al. 2016,
arXiv:1509.00519, for the importance-weighted bound).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Density, Inference, Likelihood
from castalia.core.data import Batch, Dataset
from castalia.core.errors import NonFiniteError, UsageError
from castalia.core.rng import Rng, SampleRng
from castalia.core.spec import Spec
from castalia.estimators.metric import Interval, Metric, generator, mean_metric, subset
from castalia.estimators.progress import Show, Ticker
from castalia.media.rooms import medium_of

VALUES_AT_ONCE = 1 << 20
"""Values (pixels) of one batch of examples; bounds the memory."""

PAIRS_AT_ONCE = 1 << 17
"""Examples times importance samples of one batch; bounds the memory."""

MIN_REFINED = 10
"""Fewer refined examples give no usable interval."""

ACTIVE = 0.01
"""A latent dimension is active where its posterior mean has a larger variance over the data (Burda)."""


def dims(spec: Spec) -> int:
    """Number of values in one example; an open dimension counts as long as the spec says that examples usually are."""
    usual = int(getattr(spec, "length", 1))
    return sum(math.prod(usual if d is None else d for d in field.shape) for field in spec.fields().values())


def is_binary(preprocessing: str) -> bool:
    """Whether a likelihood is one of binarised pictures, told from its description."""
    return "binaris" in preprocessing


def nats_unit(preprocessing: str, values: tuple[int, ...] | None = None) -> str:
    """The unit of a likelihood; nats of binary values, or of 17, are not to be compared with those of 256 levels."""
    if is_binary(preprocessing):
        return "nats of binary values"
    return "nats" if values is None else f"nats of {len(values)} values"


def batch_rows(spec: Spec, samples: int = 1) -> int:
    """Examples measured at once, such that the memory stays bounded."""
    return max(1, min(256, VALUES_AT_ONCE // dims(spec), PAIRS_AT_ONCE // samples))


def log_likelihoods(
    model: Density,
    data: Dataset,
    ids: np.ndarray,
    *,
    samples: int = 1,
    seed: int = 0,
    show: Show | None = None,
    rows: int | None = None,
) -> Likelihood:
    """Log-likelihood of each example ``ids`` (N,), in nats, ``float64`` (N,).

    Randomness belongs to (seed, example), so the numbers do not depend on the batch size ``rows``, and a
    second call with more samples measures the very same binarised or dequantised examples.

    Args:
        model: what is measured.
        data: where the examples are.
        ids: which examples, ``int64`` (N,), at least one.
        samples: importance samples per example.
        seed: of all randomness.
        show: receives lines of progress.
        rows: examples at once; None chooses.

    Raises:
        NonFiniteError: an example has no finite likelihood; all are counted, none is left out.
    """
    if not len(ids):
        raise UsageError("There are no examples to measure.")
    rows = rows or batch_rows(data.spec, samples)
    ticker = Ticker(f"likelihood, K = {samples}", len(ids), show)
    device = getattr(model, "device", torch.device("cpu"))
    parts: list[Tensor] = []
    found: Likelihood | None = None
    error = 0.0
    for start in range(0, len(ids), rows):
        mine = ids[start : start + rows]
        rng = SampleRng(seed, [int(i) for i in mine], device)
        with torch.no_grad():
            found = model.log_likelihood(data.batch(mine).to(device), rng=rng, samples=samples)
        if found.nats.shape != (len(mine),):
            raise ValueError(f"log_likelihood returned shape {tuple(found.nats.shape)} for {len(mine)} examples")
        parts.append(found.nats.double().cpu())
        error = max(error, found.error)
        ticker.step(len(mine))
    assert found is not None
    nats = torch.cat(parts)
    bad = ids[~torch.isfinite(nats).numpy()]
    if len(bad):
        raise NonFiniteError(
            f"{len(bad)} of {len(ids)} examples of {data.name} have no finite likelihood (K = {samples}; "
            f"the first: {', '.join(map(str, bad[:5]))}). Nothing was recorded: leaving them out would "
            "flatter the model."
        )
    return replace(found, nats=nats, error=error)


def measure(
    model: Density,
    data: Dataset,
    ids: np.ndarray,
    *,
    samples: int = 100,
    refine: int = 0,
    seed: int = 0,
    show: Show | None = None,
) -> dict[str, Metric]:
    """Negative log-likelihood: ``nll`` (see :func:`nats_unit`), ``bits_per_dim``; with importance weights ``elbo``.

    Args:
        model: what is measured.
        data: where the examples are.
        ids: which examples, ``int64`` (N,).
        samples: importance samples per example, K; models with an exact likelihood ignore it. Where a model has no
            posterior to weight samples of, they are random terms of one and the same bound: there is no ``elbo`` then,
            which would be the same number with more noise.
        refine: 0: K samples for every example. Else: K samples for this many random examples and K/100 for
            all (see :func:`two_phase`), much cheaper and unbiased for the mean of the K-sample bound.
        seed: of all randomness.
        show: receives lines of progress.

    Raises:
        UsageError: ``samples`` or ``refine`` make no sense.
        NonFiniteError: an example has no finite likelihood.
    """
    if samples < 1 or refine < 0 or 0 < refine < MIN_REFINED:
        raise UsageError(f"samples must be at least 1, and refine 0 or at least {MIN_REFINED}.")
    weighted = isinstance(model, Inference)
    first_samples = 1 if weighted or refine else samples
    plain = log_likelihoods(model, data, ids, samples=first_samples, seed=seed, show=show)
    detail, nats = plain.preprocessing, -plain.nats.numpy()
    unit = nats_unit(detail, plain.values)
    if plain.kind != "bound":
        nll = mean_metric(nats, unit, _kind(plain), seed, detail)
        return {"nll": nll, **per_unit(nll, nats, data, ids)}
    out: dict[str, Metric] = {}
    if samples == first_samples:
        out["nll"] = mean_metric(nats, unit, _kind(plain), seed, detail)
    elif refine and refine < len(ids):
        rough = max(1, samples // 100)
        first = nats
        if rough > 1:
            first = -log_likelihoods(model, data, ids, samples=rough, seed=seed, show=show).nats.numpy()
        chosen = subset(len(ids), refine, seed, "refine")
        fine = log_likelihoods(model, data, ids[chosen], samples=samples, seed=seed, show=show)
        value, interval = two_phase(first, chosen, -fine.nats.numpy())
        kind = f"estimate of the K = {samples} bound"
        how = f"K = {rough} on {len(ids)} examples, corrected by K = {samples} on {refine} of them; {detail}"
        out["nll"] = Metric(value, unit, kind, len(ids), seed, interval, how)
    else:
        full = log_likelihoods(model, data, ids, samples=samples, seed=seed, show=show)
        out["nll"] = mean_metric(-full.nats.numpy(), unit, _kind(full), seed, detail)
    out |= per_unit(out["nll"], None, data, ids)
    if weighted:
        out["elbo"] = mean_metric(nats, unit, "bound (K = 1)", seed, f"negative ELBO, less is better; {detail}")
    return out


def two_phase(first: np.ndarray, chosen: np.ndarray, fine: np.ndarray) -> tuple[float, Interval]:
    """Mean of an expensive number over all examples, from a cheap one on all and both on a random few.

        estimate = mean over all of cheap + mean over the chosen of (expensive - cheap)

    The chosen are a random subset, so the second term is an unbiased estimate of the mean difference whatever
    the cheap number is; the closer the two, the smaller its variance. With N examples of which n are chosen,

        variance = var(expensive) / N + var(expensive - cheap) (1/n - 1/N):

    what measuring all N would leave, plus what choosing n of them adds (without replacement). var(expensive)
    is that of the cheap number over all N, corrected by the covariances seen on the chosen.

    Args:
        first: the cheap number for all, (N,).
        chosen: positions of the n chosen, (n,), drawn without replacement.
        fine: the expensive number of the chosen, (n,).

    Returns:
        The estimate and its 95% interval (normal approximation).
    """
    cheap, (n, total) = first[chosen], (len(chosen), len(first))
    difference = fine - cheap
    spread = difference.var(ddof=1)
    covariance = float(np.cov(cheap, difference)[0, 1])
    expensive = max(first.var(ddof=1) + 2 * covariance + spread, 0.0)
    value = float(first.mean() + difference.mean())
    half = 1.96 * math.sqrt(expensive / total + spread * (1 / n - 1 / total))
    return value, (value - half, value + half)


def label_gain(
    model: Density, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """What it is worth to know the label: ``label_gain``, nats that examples cost more when it is left out.

    Per token, second and so on, where the medium counts them. Nothing for models that must be told the label, nor
    for examples without one.
    """
    if not model.label_optional or data.batch(ids[:1]).label is None:
        return {}
    told, untold = (
        log_likelihoods(model, d, ids, seed=seed, show=show).nats.numpy() for d in (data, _Unlabelled(data))
    )
    kind, detail = "paired difference; interval: bootstrap", "how much more an example costs without its label"
    whole = mean_metric(told - untold, "nats", kind, seed, detail)
    rates = per_unit(whole, told - untold, data, ids)
    return {"label_gain": next(iter(rates.values()), whole)}


class _Unlabelled(Dataset):
    """The same examples, without labels."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        self.spec, self.name = data.spec, data.name

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, ids: np.ndarray, rng: Rng | None = None) -> Batch:
        return replace(self.data.batch(ids, rng), label=None)


def latent_use(
    model: Inference, data: Dataset, ids: np.ndarray, *, seed: int = 0, show: Show | None = None
) -> dict[str, Metric]:
    """How much of its latents a model uses: ``kl`` (nats) and ``active_units`` (Burda et al., section 5).

    Where every KL is infinite, because an example has one latent vector and no other, there is no ``kl``.

    Raises:
        NonFiniteError: an example has no finite latents or KL.
    """
    device = getattr(model, "device", torch.device("cpu"))
    rows, ticker = batch_rows(data.spec), Ticker("latents", len(ids), show)
    means, kls = [], []
    for start in range(0, len(ids), rows):
        batch = data.batch(mine := ids[start : start + rows]).to(device)
        with torch.no_grad():
            means.append(model.encode(batch).double().cpu())
            kls.append(model.posterior_kl(batch).double().cpu())
        ticker.step(len(mine))
    mean, kl = torch.cat(means), torch.cat(kls)
    point = bool((kl == torch.inf).all())
    bad = int((~(torch.isfinite(mean).all(1) & (torch.isfinite(kl).all(1) | point))).sum())
    if bad:
        raise NonFiniteError(f"{bad} of {len(ids)} examples of {data.name} have no finite latents.")
    active = int((mean.var(0, correction=0) > ACTIVE).sum())
    units = Metric(
        float(active),
        "dimensions",
        f"variance of the posterior mean > {ACTIVE}",
        len(ids),
        seed,
        None,
        f"of {model.latent_dims}; the encoder saw pictures as they are, nothing drawn at random",
    )
    if point:
        return {"active_units": units}
    average = kl.mean(0)
    detail = (
        f"{int((average > ACTIVE).sum())} of {len(average)} dimensions carry more than {ACTIVE} nats, "
        f"the largest {average.max():.3g}"
    )
    kind = "exact KL of the posterior to the prior"
    return {"kl": mean_metric(kl.sum(1).numpy(), "nats", kind, seed, detail), "active_units": units}


def _kind(likelihood: Likelihood) -> str:
    how = likelihood.detail
    how += f"; error of its computation about {likelihood.error:.2g} nat" if likelihood.error else ""
    return likelihood.kind + (f" ({how})" if how else "")


def per_unit(nll: Metric, nats: np.ndarray | None, data: Dataset, ids: np.ndarray) -> dict[str, Metric]:
    """Nats per example per whatever the medium tells likelihoods per: bits per dimension, nats per token.

    Args:
        nll: nats per example.
        nats: those of each example (N,), for media whose examples differ in size; a bound has none.
        data: where the examples are.
        ids: which were measured.
    """
    medium, spec = medium_of(data.spec), data.spec
    if all(d is not None for field in spec.fields().values() for d in field.shape):
        rates = medium.rates(data.batch(ids[:1]), spec)
        return {name: _scaled(nll, rate.unit, float(rate.counts[0]), rate.base) for name, rate in rates.items()}
    counts: dict[str, list[Tensor]] = {}
    units: dict[str, tuple[str, float]] = {}
    for start in range(0, len(ids), rows := batch_rows(spec)):
        for name, rate in medium.rates(data.batch(ids[start : start + rows]), spec).items():
            counts.setdefault(name, []).append(rate.counts.double().cpu())
            units[name] = rate.unit, rate.base
    out = {}
    for name, parts in counts.items():
        found = torch.cat(parts).numpy()
        if nats is None:
            out[name] = _scaled(nll, units[name][0], float(found.mean()), units[name][1])
        else:
            out[name] = ratio_metric(
                nats, found * math.log(units[name][1]), units[name][0], nll.kind, nll.seed, nll.detail
            )
    return out


def bits_per_dim(nll: Metric, spec: Spec) -> Metric:
    """Nats per example as bits per dimension."""
    return _scaled(nll, "bits/dim", dims(spec), 2)


def _scaled(nll: Metric, unit: str, count: float, base: float) -> Metric:
    """Where nats are those of binary values, the unit still says so."""
    return nll.scaled(1 / (count * math.log(base)), nll.unit.replace("nats", unit))


def ratio_metric(above: np.ndarray, below: np.ndarray, unit: str, kind: str, seed: int, detail: str) -> Metric:
    """The sum of some numbers (N,) over the sum of others, with a bootstrap interval over the examples."""
    random = generator(seed, "ratio")
    picks = random.integers(0, len(above), (200, len(above))) if len(above) > 1 else None
    value = float(above.sum() / below.sum())
    interval = None
    if picks is not None:
        ratios = above[picks].sum(1) / below[picks].sum(1)
        interval = (float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975)))
    return Metric(value, unit, kind, len(above), seed, interval, detail)
