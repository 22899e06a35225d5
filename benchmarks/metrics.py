"""Distances and coverage of 10,000 samples beside torchmetrics and prdc, on the same features.

Equal work is the distance alone; ``castalia evaluate`` reports it with its interval, which torchmetrics does not have,
and which is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks import ceilings
from benchmarks.harness import Options, Row, alternate, profile
from castalia.estimators.coverage import coverage
from castalia.estimators.distances import frechet


class Given(nn.Module):
    """A feature extractor whose pictures are features already."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x


def rows(options: Options) -> Iterator[Row]:
    """Fréchet distance at two sizes of features, precision and recall at one."""
    from prdc import compute_prdc
    from torchmetrics.image.fid import FrechetInceptionDistance

    n = 500 if options.quick else 10_000
    for features in (128,) if options.quick else (128, 2048):
        if not options.wants(f"Fréchet distance, {n:,} samples, {features} features"):
            continue
        x, y = torch.randn(n, features), torch.randn(n, features) * 1.1 + 0.1

        def theirs(x: Tensor = x, y: Tensor = y, features: int = features) -> float:
            metric = FrechetInceptionDistance(feature=Given(features), input_img_size=(features,))
            metric.update(x, real=True)
            metric.update(y, real=False)
            return float(metric.compute())

        ours = lambda x=x, y=y: frechet(x, y, error=False).value  # noqa: E731
        assert abs(ours() - theirs()) < 1e-3 * abs(theirs()) + 1e-3, "the two do not measure the same"
        timing = alternate(ours, theirs, min(options.rounds, 3) if features > 1000 else options.rounds, warm=0)
        products = 2 * 2 * n * features**2 / 1e9
        yield timing.row(
            "metrics",
            f"Fréchet distance, {n:,} samples, {features} features",
            "torchmetrics",
            target=1.0,
            gflop=products,
            ceiling=("matrix product float64", ceilings.matmul(torch.float64, options.threads)),
            profile=profile(ours),
            note="the distance alone; operations of the two covariances only; both in float64",
        )
        whole = lambda x=x, y=y: frechet(x, y).value  # noqa: E731
        timing = alternate(whole, theirs, min(options.rounds, 3) if features > 1000 else options.rounds, warm=0)
        yield timing.row(
            "metrics",
            f"Fréchet distance with its interval, {n:,} samples, {features} features",
            "torchmetrics",
            note="as castalia evaluate reports it; torchmetrics gives the distance alone",
        )
    work = f"precision, recall, density, coverage, {n:,} samples, 128 features"
    if not options.wants(work):
        return
    x, y = torch.randn(n, 128), torch.randn(n, 128) * 0.9 + 0.1
    ours = lambda: coverage(x, y, 5)  # noqa: E731
    theirs = lambda: compute_prdc(x.double().numpy(), y.double().numpy(), 5)  # noqa: E731
    mine, other = ours(), theirs()
    assert abs(mine.precision - other["precision"]) < 1e-3, "the two do not measure the same"
    assert abs(mine.recall - other["recall"]) < 1e-3, "the two do not measure the same"
    timing = alternate(ours, theirs, min(options.rounds, 3), warm=0)
    yield timing.row(
        "metrics",
        f"precision, recall, density, coverage, {n:,} samples, 128 features",
        "prdc",
        target=1.0,
        gflop=3 * 2 * n * n * 128 / 1e9,
        ceiling=("matrix product float64", ceilings.matmul(torch.float64, options.threads)),
        profile=profile(ours),
        note="operations of three matrices of pairs; prdc starts 8 jobs whatever is asked for",
    )
