"""What a training over many devices would need: memory, operations, what is sent, tokens per second.

It describes how Castalia trains: parameters, gradients and moments in float32, matrix products in the narrow type under
autocast, replicas that average gradients after every micro-batch, FSDP2 by block, and blocks cut up as in
:mod:`castalia.training.splitting`, without pipelines. Rings are reckoned to send 2 (n - 1) / n of what n processes add
up, and half of it to gather or to scatter (Rajbhandari et al. 2020, arXiv:1910.02054, section 7).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from castalia.configuration import Training
from castalia.core.errors import UsageError
from castalia.core.precision import Precision
from castalia.training.costs import WIDE, Costs, Piece
from castalia.training.machines import Machine

MOMENTS = {"adamw": 2, "adam": 2, "adamax": 2, "rmsprop": 2, "sgd": 1}
"""Numbers that an optimizer keeps for a parameter; Muon keeps one for those of blocks' matrices and two for others."""


@dataclass(frozen=True)
class Layout:
    """How a training is spread over devices, of which there are replicas x shards x tensor.

    Attributes:
        replicas: that each have everything and average their gradients.
        shards: over which parameters, gradients and moments of a replica are spread.
        tensor: that share each block.
        micro: windows that a device computes at once.
        recompute: blocks are computed again in the backward pass, and only their inputs are kept.
    """

    replicas: int = 1
    shards: int = 1
    tensor: int = 1
    micro: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        if min(self.replicas, self.shards, self.tensor, self.micro) < 1:
            raise UsageError("Replicas, shards, tensor and micro are whole numbers of at least 1.")

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.replicas * self.shards * self.tensor


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters: in float32.
        gradients: in float32.
        moments: of the optimizer.
        averages: of the weights.
        narrow: copies of matrices in the narrow type, which autocast makes, or gathered shards.
        activations: kept for the backward pass.
        passing: logits and their gradients.
    """

    parameters: float
    gradients: float
    moments: float
    averages: float
    narrow: float
    activations: float
    passing: float

    @property
    def total(self) -> float:
        """At the peak; what the libraries take for themselves comes on top (some 1e9 bytes on accelerators)."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Forecast:
    """What a training would need.

    Attributes:
        parameters: of the network.
        layout: how it is spread.
        machine: on what.
        precision: of matrix products.
        utilisation: share of the peak that the operations of the model reach; recomputation does not count.
        accumulate: micro-batches of a step.
        memory: of one device.
        memory_otherwise: the same with ``recompute`` as it is not.
        cache: bytes of keys and values of one text that fills the context, of one device.
        operations: of a step, of all devices, forward and backward.
        recomputed: operations that recomputation adds to them.
        sent: bytes that a device sends in a step, by what for.
        seconds: of a step, at the utilisation.
        sending: seconds that a device sends in a step, were nothing else to be done.
        tokens_per_step: of all devices.
        tokens: of the whole training.
        writing: tokens per second of one text, when matrices and cache are read from memory once for each.
    """

    parameters: int
    layout: Layout
    machine: Machine
    precision: Precision
    utilisation: float
    accumulate: int
    memory: Memory
    memory_otherwise: Memory
    cache: float
    operations: float
    recomputed: float
    sent: dict[str, float]
    seconds: float
    sending: float
    tokens_per_step: int
    tokens: int
    writing: float

    @property
    def tokens_per_second(self) -> float:
        """Of all devices together."""
        return self.tokens_per_step / self.seconds

    @property
    def days(self) -> float:
        """Of the whole training."""
        return self.tokens / self.tokens_per_second / 86_400

    @property
    def fits(self) -> bool:
        """Whether a device has the memory."""
        return self.memory.total <= self.machine.memory

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        data = asdict(self)
        data["memory"]["total"], data["memory_otherwise"]["total"] = self.memory.total, self.memory_otherwise.total
        more = {"devices": self.layout.devices, "tokens_per_second": self.tokens_per_second, "days": self.days}
        return {**data, **more, "fits": self.fits}


def forecast(
    costs: Costs,
    training: Training,
    layout: Layout,
    machine: Machine,
    *,
    heads: int,
    precision: Precision = "bfloat16",
    utilisation: float = 0.4,
) -> Forecast:
    """What a training needs.

    Args:
        costs: of the network.
        training: batch, steps and optimizer.
        layout: how it is spread.
        machine: on what.
        heads: of attention, which ``layout.tensor`` must divide.
        precision: of matrix products.
        utilisation: share of the machine's peak, above 0 and at most 1.

    Raises:
        UsageError: the batch or the heads cannot be shared so.
    """
    if not 0 < utilisation <= 1:
        raise UsageError(f"The utilisation is a share of the peak, above 0 and at most 1, not {utilisation:g}.")
    if heads % layout.tensor:
        raise UsageError(f"{heads} heads cannot be shared evenly by {layout.tensor} processes (--tensor).")
    at_once = layout.replicas * layout.shards * layout.micro
    if training.batch_size % at_once:
        raise UsageError(
            f"A batch of {training.batch_size} does not divide into micro-batches of {layout.micro} on "
            f"{layout.replicas * layout.shards} replicas or shards; change --replicas, --shards, --micro or "
            "--set training.batch_size."
        )
    rounds = training.batch_size // at_once
    memory = _memory(costs, training, layout)
    again = replace(layout, recompute=not layout.recompute)
    sent, sending = _sent(costs, layout, rounds, machine)
    operations = 3 * costs.forward * training.batch_size
    inside = sum(b.operations + b.repeated for b in costs.blocks) * training.batch_size
    peak = machine.peak if precision == "bfloat16" else machine.peak_wide
    read = (sum(b.multiplied for b in costs.blocks) * costs.narrow + costs.cache) / layout.tensor
    read += costs.around.multiplied * costs.narrow
    # each device of a team does its part of what is split, and all of what is not
    own = 3 * sum(p.operations / layout.tensor + p.repeated for p in costs.pieces) * training.batch_size
    return Forecast(
        parameters=costs.parameters,
        layout=layout,
        machine=machine,
        precision=precision,
        utilisation=utilisation,
        accumulate=rounds,
        memory=memory,
        memory_otherwise=_memory(costs, training, again),
        cache=costs.cache / layout.tensor,
        operations=operations,
        recomputed=inside if layout.recompute else 0.0,
        sent=sent,
        seconds=own / (layout.replicas * layout.shards * peak * utilisation),
        sending=sending,
        tokens_per_step=training.batch_size * costs.length,
        tokens=training.batch_size * costs.length * training.steps,
        writing=machine.bandwidth / read,
    )


def _own(piece: Piece, layout: Layout) -> float:
    """Parameters of a piece that a tensor-parallel process has, before they are cut into shards."""
    return piece.split / layout.tensor + piece.whole


def _memory(costs: Costs, training: Training, layout: Layout) -> Memory:
    mine = sum(_own(p, layout) for p in costs.pieces)
    share = mine / layout.shards
    if training.optimizer.name == "muon":  # of matrices in blocks one number, else two
        matrices = sum(b.multiplied for b in costs.blocks) / layout.tensor / layout.shards
        moments = WIDE * (2 * share - matrices)
    else:
        moments = WIDE * MOMENTS[training.optimizer.name] * share
    kept = [(b.kept_split / layout.tensor + b.kept_whole) * layout.micro + b.fixed for b in costs.blocks]
    around = costs.around
    if layout.recompute:
        activations = sum(b.entry for b in costs.blocks) * layout.micro + max(kept, default=0.0)
    else:
        activations = sum(kept)
    return Memory(
        parameters=WIDE * share,
        gradients=WIDE * share,
        moments=moments,
        averages=WIDE * share if training.ema_half_life else 0.0,
        narrow=_copies(costs, layout),
        activations=activations + around.kept_whole * layout.micro,
        passing=around.passing * layout.micro,
    )


def _copies(costs: Costs, layout: Layout) -> float:
    """Bytes of further copies of parameters."""
    head = costs.around.multiplied * costs.narrow if costs.narrow < WIDE else 0.0
    if layout.shards == 1:
        if costs.narrow == WIDE:
            return 0.0
        blocks = [b.multiplied for b in costs.blocks]
        # what is computed again makes its copies again, and lets them go
        return costs.narrow * (max(blocks, default=0) if layout.recompute else sum(blocks)) / layout.tensor + head
    # two blocks are gathered at a time, one has whole gradients; what is around them is gathered throughout a loss
    largest = max((_own(b, layout) for b in costs.blocks), default=0.0)
    return largest * (3 * costs.narrow + WIDE) + 2 * WIDE * _own(costs.around, layout) + head


def _sent(costs: Costs, layout: Layout, rounds: int, machine: Machine) -> tuple[dict[str, float], float]:
    """Bytes that a device sends in a step, and the seconds that this takes."""
    blocks = sum(_own(b, layout) for b in costs.blocks)
    around = _own(costs.around, layout)
    forward = 2 if layout.recompute else 1
    added = sum(forward * b.added + b.returned for b in costs.blocks) * layout.micro * rounds
    tensor = 2 * (layout.tensor - 1) / layout.tensor * added
    scattered = (layout.shards - 1) / layout.shards
    gathered = 2 * blocks * costs.narrow + around * WIDE
    shards = scattered * rounds * (gathered + WIDE * (blocks + around))
    averaged = WIDE * (blocks + around) / layout.shards
    replicas = 2 * (layout.replicas - 1) / layout.replicas * averaged * rounds
    sent = {"tensor": tensor, "shards": shards, "replicas": replicas}
    seconds, reach = 0.0, 1
    for name, count in (("tensor", layout.tensor), ("shards", layout.shards), ("replicas", layout.replicas)):
        reach *= count
        seconds += sent[name] / (machine.link if reach <= machine.per_node else machine.network)
    return sent, seconds
