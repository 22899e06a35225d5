"""Processes: who has which rows, averaged gradients, and agreement.

Started by ``torchrun``; without it there is one process and nothing here costs anything. Data parallelism is
``DistributedDataParallel`` around each objective's module, or, where the model is to be cut up, what is in
:mod:`castalia.training.sharding`: models stay single-device code.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from castalia.core.errors import CastaliaError, UsageError


@dataclass(frozen=True)
class World:
    """This process among its peers.

    Attributes:
        rank: 0 for the one that writes.
        size: number of processes.
        local_size: number of processes on this machine.
        device: where this process computes.
        sharded: whether each process holds only a part of the model.
        tensor: processes that share each block, neighbours by rank; each such team is one replica.
    """

    rank: int
    size: int
    local_size: int
    device: torch.device
    sharded: bool = False
    tensor: int = 1

    @property
    def replicas(self) -> int:
        """Teams that compute rows of their own."""
        return self.size // self.tensor

    @property
    def replica(self) -> int:
        """The team of this process."""
        return self.rank // self.tensor

    @property
    def apart(self) -> bool:
        """Whether no process has the whole model."""
        return self.sharded or self.tensor > 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and talks to the person."""
        return self.rank == 0

    def rows(self, total: int) -> tuple[int, int]:
        """First row and number of rows of this process in a batch of ``total``."""
        if total % self.replicas:
            raise UsageError(f"A batch of {total} cannot be shared evenly by {self.replicas} processes.")
        share = total // self.replicas
        return self.replica * share, share


@contextmanager
def world(device: torch.device | None = None, *, shard: bool = False, tensor: int = 1) -> Iterator[World]:
    """Join the process group that ``torchrun`` describes, or be alone; one process has nothing to shard.

    Raises:
        UsageError: there are not as many processes as are to share blocks, or no multiple of that; or both are asked.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if tensor < 1 or size % tensor:
        raise UsageError(
            f"--tensor {tensor}: {size} process{'es' * (size > 1)} cannot be divided into teams of {tensor}. "
            f"Start them with torchrun --nproc_per_node {max(tensor, 1)}."
        )
    if shard and tensor > 1:
        raise UsageError("--shard cuts parameters up, and --tensor the work of blocks; take one of the two.")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if size == 1:
        yield World(0, 1, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dist.is_initialized():  # the caller's group
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), device, shard, tensor)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)), device, shard, tensor)
    finally:
        _let_go()
        dist.destroy_process_group()


_wrappers: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()


def _let_go() -> None:
    """Take the reducers out of all wrappers, so that none of them outlives the process group.

    A reducer that holds the last reference to the group ends it with Python's lock in its hands, and then waits for
    the group's threads. Where one of these wants the lock, to give back a tensor, the process hangs for ever.
    """
    for wrapper in list(_wrappers):
        del wrapper.logger, wrapper.reducer
    _wrappers.clear()


class Call(nn.Module):
    """Gives an objective's loss the shape of a module call, which DDP can wrap."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def wrap(module: nn.Module, world: World) -> nn.Module:
    """Return a module whose call ``wrapped(loss, *args)`` runs the loss and averages gradients on backward."""
    call = Call(module)
    if world.size == 1:
        return call
    ids = [world.device.index] if world.device.type == "cuda" else None
    with warnings.catch_warnings():  # newer releases rename the argument that older ones need
        warnings.simplefilter("ignore", FutureWarning)
        made = DistributedDataParallel(call, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)
    _wrappers.add(made)
    return made


def synchronise(module: nn.Module, world: World) -> None:
    """Let batch normalisation see the whole batch: its statistics become those of all processes' rows.

    torch's own SyncBatchNorm refuses the CPU. The forward pass of each such layer is replaced on the instance, so
    names and state stay as they are; evaluation mode is not touched.
    """
    if world.size == 1:
        return
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.forward = partial(_batch_norm, part, part.forward, world)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def apart(module: nn.Module) -> Iterator[None]:
    """Run a block in which this process computes without its peers, who do something else or wait."""
    with_peers = [p for p in module.modules() if getattr(p.__dict__.get("forward"), "func", None) is _batch_norm]
    replaced = {part: part.__dict__.pop("forward") for part in with_peers}
    try:
        yield
    finally:
        for part, forward in replaced.items():
            part.forward = forward


def _batch_norm(layer: Any, alone: Callable[[Tensor], Tensor], world: World, x: Tensor) -> Tensor:
    """Batch normalisation of x (B, C, ...) with the statistics of all processes (equal numbers of rows)."""
    if not layer.training:
        return alone(x)
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    wide = x.float()
    mean = _mean_with_gradient(wide.mean(axes), world)
    # the mean of squared distances, not of squares: no cancellation
    variance = _mean_with_gradient((wide - mean.view(shape)).square().mean(axes), world)
    if layer.track_running_stats:
        with torch.no_grad():
            n = x.numel() // x.shape[1] * world.size
            layer.num_batches_tracked.add_(1)
            rate = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean.detach(), rate)
            layer.running_var.lerp_(variance.detach() * (n / max(n - 1, 1)), rate)
    normal = (wide - mean.view(shape)) * torch.rsqrt(variance.view(shape) + layer.eps)
    if layer.affine:
        normal = normal * layer.weight.view(shape) + layer.bias.view(shape)
    return normal.to(x.dtype)


def _mean_with_gradient(values: Tensor, world: World) -> Tensor:
    """Mean over processes through which gradients flow back to all of them."""
    return all_reduce(values) / world.size


@torch.no_grad()
def broadcast_state(module: nn.Module, world: World) -> None:
    """Make every process's parameters and buffers equal to rank 0's."""
    if world.size > 1:
        for tensor in module.state_dict().values():
            there = tensor.to(world.device)  # a model that is about to be sharded is not there yet
            dist.broadcast(there, 0)
            tensor.copy_(there)


@torch.no_grad()
def unite(module: nn.Module, world: World, apart: Sequence[Tensor] = (), before: Sequence[Tensor] = ()) -> None:
    """After an update without gradients: parameters become their mean over processes, buffers rank 0's.

    Buffers that are kept ``apart`` were as ``before``; each process changed its own part of them.
    """
    if world.size > 1:
        for parameter in module.parameters():
            dist.all_reduce(parameter.data)
            parameter.data /= world.size
        own = {id(buffer) for buffer in apart}
        for buffer, old in zip(apart, before, strict=True):
            changed = buffer - old  # of whole numbers without a sign it wraps around, and the sum wraps back
            dist.all_reduce(changed)
            buffer.copy_(old + changed)
        for buffer in module.buffers():
            if id(buffer) not in own:
                dist.broadcast(buffer, 0)


def mean_over(values: Tensor, world: World) -> Tensor:
    """Mean of a float64 vector over processes; an element that is not finite anywhere is so everywhere."""
    if world.size > 1:
        values = values.to(world.device)
        dist.all_reduce(values)
        values /= world.size
    return values


def share(value: Any, world: World) -> Any:
    """Give every process rank 0's value (plain data)."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def on_main(action: Callable[[], Any], world: World) -> Any:
    """Run ``action`` on rank 0 and give everybody its result (plain data).

    Where it raises, every process raises, so that nobody waits for ever.
    """
    problem: str | None = None
    error: Exception | None = None
    result = None
    if world.main:
        try:
            result = action()
        except Exception as caught:
            error, problem = caught, str(caught)
    problem, result = share((problem, result), world)
    if error is not None:
        raise error
    if problem is not None:
        raise CastaliaError(f"Process 0 stopped: {problem}")
    return result


def on_all(action: Callable[[], None], world: World) -> None:
    """Run ``action`` on every process; where it raises on any, every process raises."""
    if world.size == 1:
        action()
        return
    problem: str | None = None
    error: Exception | None = None
    try:
        action()
    except Exception as caught:
        error, problem = caught, str(caught)
    problems: list[str | None] = [None] * world.size
    dist.all_gather_object(problems, problem)
    if error is not None:
        raise error
    for rank, text in enumerate(problems):
        if text is not None:
            raise CastaliaError(f"Process {rank} stopped: {text}")
