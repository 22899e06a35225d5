"""Sharding: every process holds a part of each parameter, of its average and of its moments.

``fully_shard`` (FSDP2, Zhao et al. 2023, arXiv:2304.11277; ZeRO, Rajbhandari et al. 2020, arXiv:1910.02054) is applied
here, from outside, to one module whose call runs whatever loss it is given. So the parameters of a whole model are
gathered when a loss begins, whichever of its networks the loss visits, and the gradients are averaged and cut up when
its backward pass is done. It does not matter how many objectives, networks and optimizers there are, nor whether a loss
takes gradients of gradients.

A model may name the classes of its ``shard_units``. Those are gathered one at a time, when they are called, so that the
whole model need not fit a device. It has to fit the memory of the host, where every process makes it before it is cut.

Parameters are cut along their first dimension, as ``torch.chunk`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.core.model import Model
from castalia.core.weights import Rows
from castalia.training.parallel import Call, World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Shards:
    """A model spread over processes.

    Args:
        model: the whole model, with equal weights on every process; its parameters become shards.
        world: this process among its peers.
        precision: with ``bfloat16``, the ``shard_units`` are gathered in bfloat16 and the rest in float32; gradients
            are averaged in float32.

    Attributes:
        call: runs a loss, see :func:`castalia.training.parallel.wrap`; the same for every objective.

    Raises:
        UsageError: it has a parameter that cannot be cut.
    """

    def __init__(self, model: Model, world: World, precision: str) -> None:
        # imported where it is needed: it takes long, and most runs do without
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        for name, parameter in model.named_parameters():
            if not parameter.ndim:
                raise UsageError(
                    f"{type(model).__name__} cannot be sharded: its parameter {name!r} is a single number."
                )
            parameter.data = parameter.data.contiguous()  # FSDP knows no other layout
        self.model = model
        self.call = Call(model)
        mesh = init_device_mesh(world.device.type, (world.size,))
        wide = MixedPrecisionPolicy(cast_forward_inputs=False)
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        for part in model.modules():
            if isinstance(part, model.shard_units):
                fully_shard(part, mesh=mesh, mp_policy=narrow if precision == "bfloat16" else wide)
        fully_shard(self.call, mesh=mesh, mp_policy=wide)  # a loss may want some of it in float32
        self._groups = [part for part in self.call.modules() if isinstance(part, FSDPModule)]

    @contextmanager
    def gathered(self, *, keep: bool = False) -> Iterator[None]:
        """Run a block with whole parameters in place, on every process at once.

        Args:
            keep: what the block writes into the parameters is kept. Every process must write the same.
        """
        written: dict[str, Tensor] = {}
        for group in self._groups:
            group.unshard()
        try:
            yield
            if keep:
                written = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        finally:
            for group in self._groups:
                group.reshard()
        place(dict(self.model.named_parameters()), written)


def is_shard(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether other processes hold the rest of a tensor."""
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds; a tensor that is not sharded is its own part."""
    return tensor.to_local() if is_shard(tensor) else tensor


def rows(tensor: Tensor) -> Rows | None:
    """Which rows :func:`local` has; None where it is not sharded."""
    if not is_shard(tensor):
        return None
    total, mesh = tensor.shape[0], tensor.device_mesh
    size = -(-total // mesh.size())
    return Rows(min(mesh.get_local_rank() * size, total), total)


def whole(tensors: Mapping[str, Tensor], *, wanted: bool) -> dict[str, Tensor]:
    """Gather sharded tensors on the CPU, one after another, on every process at once.

    Args:
        tensors: some of them sharded; the same names on every process.
        wanted: whether this process wants the result; the others get nothing.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if is_shard(tensor) else tensor
        if wanted:
            found[name] = full.detach().cpu()
    return found


@torch.no_grad()
def place(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy whole ``values`` into ``targets`` of the same names; a sharded target takes its rows."""
    for name, value in values.items():
        target, mine = local(targets[name]), rows(targets[name])
        target.copy_(value if mine is None else value[mine.first : mine.first + len(target)])


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Norm of all gradients together, a plain tensor, the same on every process."""
    norm = torch.nn.utils.get_total_norm(list(gradients))
    return norm.full_tensor() if is_shard(norm) else norm
