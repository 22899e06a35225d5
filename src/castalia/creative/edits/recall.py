"""What a language model gains where it looks up how other texts went on: kNN-LM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from castalia.core.errors import UsageError
from castalia.creative.edit import Edit, Page, Work, option

if TYPE_CHECKING:
    from torch import Tensor

    from castalia.models.sequence.knn import Datastore, Told

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
"""Of what is looked up, lambda."""

KS = (4, 16, 64, 256, 1024)
"""Neighbours that are looked at."""

WARMTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Temperatures, in medians of the squared distance to the nearest."""

SHOWN = 12
"""Tokens with the largest gain that stand on the page."""

AROUND = 48
"""Tokens of a context that are shown."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is remembered, and what is read with it."""

    data: str | None = option(None, "texts that are remembered (the run's training data)", metavar="SOURCE")
    of: str | None = option(None, "texts that are read (the run's held-out part)", metavar="SOURCE")
    most: int = option(100_000, "contexts that are remembered, at most (100,000)", least=1)
    n: int = option(64, "windows that are read, at most: half to choose by, half to measure (64)", flag="-n", least=4)


def run(work: Work, options: Options) -> Page:
    """Remember, choose share, number and temperature on one half of what is read, and measure on the other.

    Raises:
        UsageError: the run is no language model, or there is too little to read.
    """
    from castalia.core.data import spread
    from castalia.models.sequence.knn import Datastore, chance, mixed, told
    from castalia.page import Page as Html

    memory, read = work.data(options.data), work.held_out(options.of)
    if len(read) < 4:
        raise UsageError(f"{read.name} has {len(read)} windows: at least 4 are needed, to choose and to measure.")
    store = Datastore(told(work.model, memory, spread(len(memory), max(1, options.most // work.spec.length))))
    ids = spread(len(read), options.n)
    chosen_by, measured = (told(work.model, read, part) for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]))
    most = min(KS[-1], store.index.size)
    best = _choose(store, chosen_by, most)
    scores, numbers = store.nearest(measured.keys, most)
    k, temperature, share = best["k"], best["temperature"], best["share"]
    looked = chance(scores[:, :k], store.values(numbers[:, :k]), measured.targets, temperature)
    after = mixed(measured.nats, looked, share)
    gains = after - measured.nats
    error = _error(gains, measured.windows[:, 0])
    base, found = -measured.nats.mean().item(), -after.mean().item()
    html = Html(f"{work.title}: {len(store.stored.targets):,} contexts of {memory.name} remembered")
    html.text(
        f"Share, number and temperature were chosen on {len(chosen_by.targets):,} tokens of {read.name}; the numbers "
        f"are of {len(measured.targets):,} others. A gain in likelihood is not one in the quality of what is written "
        "(Wang et al. 2023, arXiv:2305.14625)."
    )
    html.table(
        ["nats per token", "with memory", "gain", "standard error", "share", "neighbours", "temperature", "better"],
        [[base, found, base - found, error, share, k, temperature, f"{(gains > 0).double().mean().item():.0%}"]],
    )
    html.section("Where it helped most")
    html.table(
        ["text before", "came", "gain", "nearest context that was remembered", "went on"],
        _examples(work.spec, store, memory, read, measured, gains, numbers),
    )
    told_numbers = {"nats_per_token": base, "nats_per_token_recalled": found, "gain": base - found, "error": error}
    return Page(html, {**told_numbers, **best, "contexts": len(store.stored.targets), "n": len(measured.targets)})


def _choose(store: Datastore, some: Told, most: int) -> dict[str, Any]:
    """Share, number and temperature with the smallest loss."""
    from castalia.models.sequence.knn import chance, mixed

    scores, numbers = store.nearest(some.keys, most)
    values, unit = store.values(numbers), max(-scores[:, 0].median().item(), 1e-6)
    best: tuple[float, dict[str, Any]] | None = None
    for k in sorted({min(k, most) for k in KS}):
        for warmth in WARMTHS:
            looked = chance(scores[:, :k], values[:, :k], some.targets, warmth * unit)
            for share in SHARES:
                loss = -mixed(some.nats, looked, share).mean().item()
                if best is None or loss < best[0]:
                    best = loss, {"k": k, "temperature": warmth * unit, "share": share}
    assert best is not None
    return best[1]


def _error(gains: Tensor, windows: Tensor) -> float:
    """Standard error of the mean gain, over windows, whose tokens are not independent."""
    means = [gains[windows == w].mean() for w in windows.unique()]
    import torch

    return (torch.stack(means).std() / len(means) ** 0.5).item() if len(means) > 1 else float("nan")


def _examples(
    spec: Any, store: Datastore, memory: Any, read: Any, some: Told, gains: Tensor, numbers: Tensor
) -> list[list[str | float]]:
    import numpy as np

    from castalia.media.text.tokens import tokens_of

    tokens = tokens_of(spec)

    def context(data: Any, place: Tensor) -> tuple[str, str]:
        window, column = place.tolist()
        row = data.batch(np.array([window])).x[0].numpy()
        before = tokens.decode(row[max(0, column + 1 - AROUND) : column + 1], "|")
        return before, tokens.decode(row[column + 1 : column + 2], "|")

    rows: list[list[str | float]] = []
    for i in gains.topk(min(SHOWN, len(gains))).indices.tolist():
        before, came = context(read, some.windows[i])
        nearest, went_on = context(memory, store.stored.windows[numbers[i, 0]])
        rows.append([before, came, gains[i].item(), nearest, went_on])
    return rows


EDIT = Edit(
    "recall",
    "Look up how remembered texts went on, and say what that is worth (kNN-LM).",
    "FILE.html, a page that needs nothing from elsewhere, and FILE.json with all numbers",
    Options,
    run,
    needs=("Density", "Streaming"),
    media=("text",),
)
