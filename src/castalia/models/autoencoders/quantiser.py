"""A codebook: vectors to their nearest codes, and codes that follow the vectors that they stand for.

van den Oord, Vinyals & Kavukcuoglu 2017 (arXiv:1711.00937): eq. 1 and 2 (nearest neighbour, straight-through gradient),
eq. 3 (losses), appendix A.1 (the codebook as exponential moving averages: online k-means).

With averages N_i of how many vectors chose code i, and m_i of their sums,

    N_i <- g N_i + (1 - g) n_i,    m_i <- g m_i + (1 - g) sum of z,    e_i = m_i / N_i,

where N_i is smoothed by ``eps`` (Laplace). What is kept here is shares of the vectors of a batch and not counts: N and
m are then linear in the batch, and the averages of several processes are those of one.

A code that is hardly chosen any more begins anew beside one that is chosen most: it takes half of its share. (Much code
takes a vector of the batch instead, which in several processes is another one in each.)
"""

from __future__ import annotations

from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.core.rng import Rng


@final
class Quantiser(nn.Module):
    """``size`` codes of ``dims`` numbers.

    Args:
        size: K.
        dims: of a code.
        by: how codes move: ``ema`` (averages, by :meth:`follow`) or ``gradient`` (by :meth:`pull`, a loss).
        decay: of the averages, per step.
        restart: a code whose share is below this part of the mean one, 1 / K, begins anew; 0: never.
        eps: of the smoothing, in shares: far below those of any code that is used.
    """

    def __init__(
        self,
        size: int,
        dims: int,
        by: Literal["ema", "gradient"] = "ema",
        decay: float = 0.99,
        restart: float = 0.1,
        eps: float = 1e-10,
    ) -> None:
        super().__init__()
        self.size, self.dims, self.by = size, dims, by
        self.decay, self.restart, self.eps = decay, restart, eps
        first = torch.randn(size, dims)
        if by == "ema":
            self.shares = nn.Parameter(torch.full((size,), 1 / size))
            self.sums = nn.Parameter(first / size)
        else:
            self.codes = nn.Parameter(first)

    @property
    def codebook(self) -> Tensor:
        """The codes, ``float32`` (K, dims)."""
        return self.sums / self.smoothed()[:, None] if self.by == "ema" else self.codes

    def smoothed(self) -> Tensor:
        """Shares (K,) that are never 0."""
        shares = self.shares.clamp(min=0)
        return (shares + self.eps) / (1 + self.size * self.eps)

    @torch.no_grad()
    def begin(self, codes: Tensor) -> None:
        """Start with these codes (K, dims), all chosen equally often."""
        if self.by == "ema":
            self.shares.fill_(1 / self.size)
            self.sums.copy_(codes * self.smoothed()[:, None])
        else:
            self.codes.copy_(codes)

    @torch.no_grad()
    def begin_from(self, z: Tensor, rng: Rng) -> None:
        """Start with some of the vectors (n, dims) that an encoder makes; ``rng`` has 1 row."""
        chosen = rng.integers("codes", len(z), self.size)[0]
        # no two alike: of equal codes only the first would ever be chosen
        self.begin(z[chosen] + 0.05 * z.std(0) * rng.normal("spread", self.size, self.dims)[0])

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Numbers ``int64`` (n,) of the codes nearest to vectors (n, dims)."""
        with torch.autocast(z.device.type, enabled=False):  # rounded distances would choose other codes
            book = self.codebook.float()
            return torch.addmm(book.square().sum(1), z.float(), book.T, alpha=-2).argmin(1)

    def vectors(self, index: Tensor) -> Tensor:
        """Codes (..., dims) of numbers ``int64`` (...)."""
        return F.embedding(index, self.codebook)

    def pull(self, z: Tensor, index: Tensor) -> Tensor:
        """Squared distances (n,) of the codes to the vectors that chose them; gradients for the codes only."""
        return (self.vectors(index) - z.detach()).square().sum(-1)

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor, rng: Rng) -> None:
        """Move the averages for vectors (n, dims) that chose the codes ``index`` (n,)."""
        if self.restart:
            self.revive(rng)
        sound = z.isfinite().all(1)  # those of a step that was refused stand still
        z, index = z[sound].float(), index[sound]
        n = max(len(z), 1)
        counts = torch.bincount(index, minlength=self.size).to(z.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, index, z)
        self.shares.lerp_(counts / n, 1 - self.decay)
        self.sums.lerp_(sums / n, 1 - self.decay)

    @torch.no_grad()
    def use(self) -> dict[str, Tensor]:
        """Of the averages: exp of the entropy of the shares (1 to K), and how many codes have a tenth of their due."""
        shares = self.smoothed()
        return {"perplexity": of_shares(shares / shares.sum()), "used": (shares > 0.1 / self.size).float().mean()}

    @torch.no_grad()
    def revive(self, rng: Rng) -> None:
        """Let codes that are hardly chosen begin anew beside those that are chosen most."""
        dead = (self.shares < self.restart / self.size).nonzero()[:, 0]
        if not len(dead):
            return
        book = self.codebook
        dead = dead[: min(self.size // 2, int((self.shares >= self.restart / self.size).sum()))]
        crowded = self.shares.topk(len(dead)).indices  # all alive
        noise = rng.shared(self.size).normal("revive", self.dims)[: len(dead)]
        self.shares[crowded] *= 0.5
        self.shares[dead] = self.shares[crowded]
        weight = self.smoothed()[:, None]
        self.sums[crowded] = book[crowded] * weight[crowded]
        self.sums[dead] = (book[crowded] + 0.05 * book.std(0) * noise) * weight[dead]


def perplexity(index: Tensor, size: int) -> Tensor:
    """Exp of the entropy of how often each of ``size`` codes is among ``int64`` (n,): 1 to ``size``."""
    return of_shares(torch.bincount(index.flatten(), minlength=size).float() / index.numel())


def of_shares(shares: Tensor) -> Tensor:
    """Exp of the entropy of shares (K,)."""
    return torch.special.entr(shares).sum().exp()


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """The quantised vectors, with the gradient of ``z``."""
    return z + (quantised - z).detach()
