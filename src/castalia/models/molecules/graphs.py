"""Networks on graphs of molecules: a perceptron that makes them, and relational convolutions that judge them.

Papers
    Schlichtkrull et al. 2018 (arXiv:1703.06103): relational graph convolutions. Li et al. 2016 (arXiv:1511.05493):
    gated aggregation. De Cao & Kipf 2018 (arXiv:1805.11973): how MolGAN puts them together, eqs. 4 to 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BOND_KINDS = 4
"""None, single, double, triple."""


class Maker(nn.Module):
    """Latents to logits of atoms and of bonds.

    Args:
        latent_dims: length of the latents.
        widths: of the hidden layers (tanh).
        places: atoms at most.
        kinds: of atoms, and none.
        dropout: share of hidden units that are dropped in training.
    """

    def __init__(self, latent_dims: int, widths: Sequence[int], places: int, kinds: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = latent_dims
        for width in widths:
            layers += [nn.Linear(last, width), nn.Tanh(), nn.Dropout(dropout)]
            last = width
        self.body = nn.Sequential(*layers)
        self.atoms = nn.Linear(last, places * kinds)
        self.bonds = nn.Linear(last, places * places * BOND_KINDS)
        self.places, self.kinds = places, kinds

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, places, kinds) of atoms and (n, places, places, 4) of bonds, the latter symmetric."""
        h = self.body(z)
        atoms = self.atoms(h).unflatten(1, (self.places, self.kinds))
        bonds = self.bonds(h).unflatten(1, (self.places, self.places, BOND_KINDS))
        return atoms, (bonds + bonds.transpose(1, 2)) / 2


class Relational(nn.Module):
    """One relational convolution: tanh(W_0 h_i + sum over bond kinds and neighbours of A_kij W_k h_j)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.kinds = nn.Linear(inputs, outputs * (BOND_KINDS - 1))

    def forward(self, h: Tensor, bonds: Tensor) -> Tensor:
        """Features (n, N, outputs) from (n, N, inputs) and bonds (n, 3, N, N), shares of each kind."""
        sent = self.kinds(h).unflatten(2, (BOND_KINDS - 1, -1)).transpose(1, 2)  # (n, 3, N, outputs)
        return torch.tanh(self.own(h) + (bonds @ sent).sum(1))


class Judge(nn.Module):
    """A number for each graph, whatever the order of its atoms.

    Args:
        kinds: of atoms, and none.
        convolutions: widths of the relational convolutions.
        aggregated: width of the gated sum over atoms.
        widths: of the layers behind it (tanh).
        batch_features: width of what is told about the other graphs of the batch: the mean of a layer over groups of
            rows (minibatch discrimination in its simplest form); 0 tells nothing.
        group: rows that are told of one another.
        dropout: share of units that are dropped in training.
    """

    def __init__(
        self,
        kinds: int,
        convolutions: Sequence[int],
        aggregated: int,
        widths: Sequence[int],
        batch_features: int = 0,
        group: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers, last = [], kinds
        for width in convolutions:
            layers.append(Relational(last, width))
            last = width + kinds  # what atoms are is told again to each layer
        self.convolutions = nn.ModuleList(layers)
        self.gate, self.value = nn.Linear(last, aggregated), nn.Linear(last, aggregated)
        self.others = nn.Linear(aggregated, batch_features) if batch_features else None
        self.group = group
        dense: list[nn.Module] = []
        last = aggregated + batch_features
        for width in widths:
            dense += [nn.Linear(last, width), nn.Tanh(), nn.Dropout(dropout)]
            last = width
        self.dense = nn.Sequential(*dense, nn.Linear(last, 1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, atoms: Tensor, bonds: Tensor) -> Tensor:
        """One number each, (n,).

        Args:
            atoms: shares of kinds (n, N, kinds).
            bonds: shares of kinds (n, N, N, 4); the first, none, is not looked at.
        """
        kinds = bonds[..., 1:].permute(0, 3, 1, 2)
        h = atoms
        for layer in self.convolutions:
            h = torch.cat([self.dropout(layer(h, kinds)), atoms], 2)
        h = torch.tanh((torch.sigmoid(self.gate(h)) * torch.tanh(self.value(h))).sum(1))
        if self.others is not None:
            seen = torch.tanh(self.others(h))
            means = [part.mean(0, keepdim=True).expand_as(part) for part in seen.split(self.group)]
            h = torch.cat([h, torch.cat(means)], 1)
        return self.dense(h)[:, 0]
