"""Accelerators: what their makers say of them. Light to import: the command line lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from castalia.core.errors import UsageError, near


@dataclass(frozen=True)
class Machine:
    """A device among others.

    Attributes:
        name: what it is called.
        peak: operations per second in bfloat16, with sums in float32, of dense matrices.
        peak_wide: the same in float32.
        memory: bytes.
        bandwidth: of its memory, bytes per second.
        link: to its neighbours in one node, bytes per second in one direction.
        network: to devices of other nodes, bytes per second in one direction.
        per_node: devices of a node.
    """

    name: str
    peak: float
    peak_wide: float
    memory: float
    bandwidth: float
    link: float
    network: float
    per_node: int = 8

    def __post_init__(self) -> None:
        speeds = (self.peak, self.peak_wide, self.memory, self.bandwidth, self.link, self.network)
        if min(speeds) <= 0 or self.per_node < 1:
            raise UsageError(f"What is said of the device {self.name!r} must be positive throughout.")


MACHINES: Mapping[str, Machine] = {
    m.name: m
    for m in (
        Machine("a100", 312e12, 19.5e12, 80e9, 2.039e12, 300e9, 25e9),
        Machine("h100", 989e12, 67e12, 80e9, 3.35e12, 450e9, 50e9),
        Machine("h200", 989e12, 67e12, 141e9, 4.8e12, 450e9, 50e9),
        Machine("mi300x", 1307e12, 163e12, 192e9, 5.3e12, 448e9, 50e9),
        Machine("l40s", 362e12, 91.6e12, 48e9, 0.864e12, 32e9, 12.5e9),
    )
}
"""From the makers' data sheets (A100 SXM 80 GB, H100 SXM, H200 SXM, MI300X, L40S), without sparsity; in a node NVLink,
Infinity Fabric or PCIe 4. Between nodes 200, 400, 400, 400 and 100 Gb/s for each device, which is usual, not given."""


def machine(name: str) -> Machine:
    """The device of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in MACHINES:
        raise UsageError(f"There is no device {name!r}; its numbers can be given. {near(name, MACHINES)}")
    return MACHINES[name]
