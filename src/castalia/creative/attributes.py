"""Directions in latent space that stand for something, and arithmetic with them.

Sources
    Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric" (arXiv:1512.09300),
    section 4.2: an attribute's vector is the mean latent of the examples that have it minus that of the
    others.
    Radford et al. 2016 (arXiv:1511.06434), section 6.3.2: arithmetic on latents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from castalia.core.capabilities import Inference, Searchable
from castalia.core.data import Dataset
from castalia.core.errors import UsageError
from castalia.creative.latents import decode, encode, encode_data

LIMIT = 10_000
"""Examples that are encoded at most."""

LEAST = 5
"""Examples that a caption word needs with it, and without it, to get a vector."""

_WORD = re.compile(r"[^\W\d_]{3,}")


def attribute_vector(model: Inference, x_with: Tensor, x_without: Tensor) -> Tensor:
    """The direction from examples without an attribute to examples with it.

    Args:
        model: any model with latents.
        x_with: examples (B, ...) in natural units.
        x_without: examples (B', ...).

    Returns:
        Latent vector ``float32`` (z,), in standard deviations of the prior.

    Raises:
        UsageError: one of the two is empty.
    """
    return (encode(model, x_with).double().mean(0) - encode(model, x_without).double().mean(0)).float()


def attribute_vectors(model: Inference, data: Dataset, limit: int = LIMIT, least: int = LEAST) -> dict[str, Tensor]:
    """A direction for every class of a data set and for every common word of its captions.

    Each is the mean latent of the examples of that class (or whose caption holds that word, in any case)
    minus the mean latent of all others.

    Args:
        model: any model with latents.
        data: labelled or captioned examples.
        limit: examples encoded at most, evenly spaced.
        least: examples that a word needs with it, and without it.

    Returns:
        Vectors ``float32`` (z,) by name: classes first, in label order; then words of three or more letters,
        most frequent first. A word that equals a class name gives way to the class.

    Raises:
        UsageError: the data have neither labels nor captions, or all examples agree in them.
    """
    z, ids, labels = encode_data(model, data, limit)
    members: dict[str, Tensor] = {}
    if labels is not None:
        names: tuple[str, ...] = getattr(data.spec, "classes", ())
        for number in labels.unique().tolist():
            members[str(names[number] if 0 <= number < len(names) else number)] = labels == number
    if data.texts:
        for word, mask in _words([data.texts[i] for i in ids], least).items():
            members.setdefault(word, mask)
    total, vectors = z.double().sum(0), {}
    for name, member in members.items():
        count = int(member.sum())
        if 0 < count < len(z):
            inside = z[member].double().sum(0)
            vectors[name] = (inside / count - (total - inside) / (len(z) - count)).float()
    if not vectors:
        raise UsageError(
            f"{data.name} tells no attributes: it has no two classes, and no caption word that at "
            f"least {least} examples have and others lack"
        )
    return vectors


def apply_attribute(model: Inference, x: Tensor, vector: Tensor, strengths: Sequence[float]) -> Tensor:
    """Examples with an attribute added.

    Args:
        model: any model with latents.
        x: examples (B, ...) in natural units.
        vector: latent direction (z,), for example of :func:`attribute_vector`.
        strengths: multiples of the vector that are added: 0 reconstructs, negative removes.

    Returns:
        (B, len(strengths), ...) in natural units.

    Raises:
        UsageError: the vector belongs to another model, or there are no strengths.
    """
    if vector.shape != (model.latent_dims,) or not len(strengths):
        raise UsageError(
            f"an attribute needs strengths and a vector of {model.latent_dims} values, not of {tuple(vector.shape)}"
        )
    steps = torch.tensor(strengths, dtype=torch.float32)[:, None] * vector.cpu().float()
    return decode(model, encode(model, x)[:, None] + steps)


def arithmetic(model: Inference | Searchable, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """decode(z_a - z_b + z_c), row by row: "a is to b as the answer is to c".

    Args:
        model: any model with latents.
        a: examples (B, ...) in natural units.
        b: examples (B, ...), or one for all rows.
        c: examples (B, ...), or one for all rows.

    Returns:
        (B, ...) in natural units.

    Raises:
        UsageError: the numbers of rows do not match.
    """
    rows = {len(a), len(b), len(c)} - {1}
    if len(rows) > 1:
        raise UsageError(f"arithmetic needs as many examples in each place, not {len(a)}, {len(b)} and {len(c)}")
    return decode(model, encode(model, a) - encode(model, b) + encode(model, c))


def _words(texts: Sequence[str], least: int) -> dict[str, Tensor]:
    """Which captions hold a word, ``bool`` (N,) by word, for words that ``least`` have and ``least`` lack."""
    holders: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        for word in sorted({w.lower() for w in _WORD.findall(text)}):
            holders.setdefault(word, []).append(i)
    found = {}
    for word, rows in sorted(holders.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(rows) >= least and len(texts) - len(rows) >= least:
            mask = np.zeros(len(texts), dtype=bool)
            mask[rows] = True
            found[word] = torch.from_numpy(mask)
    return found
