"""Tensor parallelism: processes share each block.

Shoeybi et al. 2019 (arXiv:1909.08053). Of a perceptron each process computes some of the hidden units, of attention
some of the heads; what they add to the residual stream is added up. So of two layers that follow one another the first
is cut by its outputs and the second by its inputs, which is what a system's ``cuts`` say, and
``torch.distributed.tensor.parallel`` applies to each block. Everything else is computed by all of them alike.

The styles of torch make ``DTensor`` of what they cut, in one stretch. Here a process has plain tensors: one layer makes
queries, keys and values, which are cut each by itself, and fused optimizers take no mixture of the two kinds. Whole
tensors are put together for a checkpoint, which is that of one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from castalia.configuration import Training
from castalia.core.errors import UsageError
from castalia.core.model import Cut, Model, Objective, Stage
from castalia.training.parallel import Call, World


class Split:
    """A model whose blocks are shared by processes.

    Args:
        model: the whole model, with equal weights on every process; it is left with this process's part.
        world: this process among its peers, of which ``world.tensor`` share each block.
        stages: of the model.
        training: the recipe's training section.

    Attributes:
        call: runs a loss, see :func:`castalia.training.parallel.wrap`.

    Raises:
        UsageError: the system has no plan for that, or its sizes do not divide.
    """

    def __init__(self, model: Model, world: World, stages: Sequence[Stage], training: Training) -> None:
        # imported where it is needed: it takes long, and most runs do without
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor.parallel import parallelize_module

        _check(model, world.tensor, stages, training)
        self.model, self.world = model, world
        self.call = Call(model)
        mesh = init_device_mesh(
            world.device.type, (world.replicas, world.tensor), mesh_dim_names=("replicas", "tensor")
        )
        self._group, self._replicas = mesh["tensor"].get_group(), mesh["replicas"].get_group()
        self._rank = mesh["tensor"].get_local_rank()
        self.cuts: dict[str, Cut] = {}
        styles = _styles(self._rank)
        for prefix, unit in model.named_modules():
            if not isinstance(unit, model.shard_units):
                continue
            plan = {name: styles[cut.of](cut.parts) for name, cut in model.cuts.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                parallelize_module(unit, mesh["tensor"], plan)
            for part in unit.modules():
                if isinstance(heads := getattr(part, "heads", None), int):
                    part.heads = heads // world.tensor  # pyright: ignore[reportArgumentType]
            for name, cut in model.cuts.items():
                self.cuts[f"{prefix}.{name}.weight"] = cut
                if cut.of == "outputs" and unit.get_submodule(name).bias is not None:
                    self.cuts[f"{prefix}.{name}.bias"] = cut
        model.to(world.device)
        self._of = {id(p): self.cuts[name] for name, p in model.named_parameters() if name in self.cuts}

    def gathered(self, *, keep: bool = False) -> AbstractContextManager[None]:
        """No process has whole parameters, and no system that has a plan asks for them.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{type(self.model).__name__} needs its whole parameters between steps, which processes that share its "
            "blocks do not have; use no --tensor."
        )

    @torch.no_grad()
    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Average gradients over replicas; their norm, the same on every process."""
        there = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in there if p.grad is not None]
        if self.world.replicas > 1:
            for gradient in gradients:
                dist.all_reduce(gradient, group=self._replicas)
                gradient /= self.world.replicas
        zero = torch.zeros((), device=self.world.device)
        mine = [g for p, g in zip(there, gradients, strict=True) if id(p) in self._of]
        everybodys = [g for p, g in zip(there, gradients, strict=True) if id(p) not in self._of]
        squares = [torch.nn.utils.get_total_norm(some).square() if some else zero for some in (mine, everybodys)]
        dist.all_reduce(squares[0], group=self._group)
        return (squares[0] + squares[1]).sqrt()

    @torch.no_grad()
    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by names of the model, put together on the CPU; on every process at once."""
        return {name: self._joined(tensors[name], self.cuts.get(name)) for name in sorted(tensors)}

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's parts of whole tensors by names of the model."""
        return {name: self._part(t, self.cuts.get(name)) for name, t in tensors.items()}

    @torch.no_grad()
    def whole_moments(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same of an optimizer's state, see :func:`castalia.training.optimizers.state_tensors`."""
        cuts = self._cuts(optimizer)
        # sorted, because those read from a file are in an order of each process's own
        return {n: self._joined(tensors[n], cuts.get(_number(n)) if tensors[n].ndim else None) for n in sorted(tensors)}

    def moments(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's parts of an optimizer's state."""
        cuts = self._cuts(optimizer)
        return {name: self._part(t, cuts.get(_number(name)) if t.ndim else None) for name, t in tensors.items()}

    def _cuts(self, optimizer: torch.optim.Optimizer) -> dict[str, Cut]:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return {str(i): self._of[id(p)] for i, p in enumerate(parameters) if id(p) in self._of}

    def _part(self, whole: Tensor, cut: Cut | None) -> Tensor:
        return whole if cut is None else part_of(whole, cut, self._rank, self.world.tensor)

    def _joined(self, mine: Tensor, cut: Cut | None) -> Tensor:
        if cut is None:
            return mine.detach().cpu()
        mine = mine.detach().contiguous()
        pieces = [torch.empty_like(mine) for _ in range(self.world.tensor)]
        dist.all_gather(pieces, mine, group=self._group)
        return joined(pieces, cut).cpu()


def part_of(whole: Tensor, cut: Cut, rank: int, size: int) -> Tensor:
    """The part of a weight (outputs, inputs), or of a bias (outputs,), that belongs to one of ``size`` processes."""
    if cut.of == "inputs":
        return whole.chunk(size, 1)[rank].contiguous()
    return torch.cat([stretch.chunk(size)[rank] for stretch in whole.chunk(cut.parts)])


def joined(pieces: Sequence[Tensor], cut: Cut) -> Tensor:
    """The inverse of :func:`part_of`, from the parts of all processes in order."""
    if cut.of == "inputs":
        return torch.cat(list(pieces), 1)
    stretches = [piece.chunk(cut.parts) for piece in pieces]
    return torch.cat([mine[i] for i in range(cut.parts) for mine in stretches])


def _number(name: str) -> str:
    """The number of the parameter in a name of an optimizer's state."""
    return ["", "", *name.rsplit("/", 2)][-2]


def _check(model: Model, size: int, stages: Sequence[Stage], training: Training) -> None:
    name = type(model).__name__
    plain = len(stages) == 1 and len(stages[0].objectives) == 1 and not (stages[0].data or stages[0].transform)
    plain = plain and stages[0].enter is None and not model.frozen()
    objective = stages[0].objectives[0]
    if not model.cuts or not plain or not isinstance(objective, Objective) or objective.project:
        raise UsageError(
            f"{name} has no plan of how processes could share its blocks. Take --shard, or neither; gpt2, gpt3 and "
            "gpt-modern have one."
        )
    if (objective.optimizer or training.optimizer).name == "muon":
        raise UsageError(
            "Muon needs whole matrices, and processes that share blocks have none. Take another optimizer "
            "(--set training.optimizer.name=adamw, and a learning rate that suits it), or no --tensor."
        )
    for prefix, unit in model.named_modules():
        if not isinstance(unit, model.shard_units):
            continue
        for part in unit.modules():
            if isinstance(heads := getattr(part, "heads", None), int) and heads % size:
                raise UsageError(f"The {heads} heads of {prefix} cannot be shared evenly by {size} processes.")
        for within, cut in model.cuts.items():
            layer = unit.get_submodule(within)
            if type(layer) is not nn.Linear:
                raise UsageError(f"{name} has no plan of how processes could share {prefix}.{within}; use no --tensor.")
            units = layer.out_features if cut.of == "outputs" else layer.in_features
            if units % (size * cut.parts):
                raise UsageError(f"The {units} units of {prefix}.{within} cannot be shared evenly by {size} processes.")


def _styles(rank: int) -> dict[str, Any]:
    """How linear layers are cut, for ``parallelize_module``."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.parallel import ParallelStyle

    class Outputs(ParallelStyle):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.cut = Cut("outputs", parts)

        def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
            _cut(module, self.cut, rank, device_mesh.size())
            group = device_mesh.get_group()
            module.register_forward_pre_hook(lambda _, args: (_Enter.apply(args[0], group), *args[1:]))
            return module

    class Inputs(ParallelStyle):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.cut = Cut("inputs", parts)

        def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
            _cut(module, self.cut, rank, device_mesh.size())
            assert isinstance(module, nn.Linear)
            module.forward = partial(_added, module, device_mesh.get_group())  # pyright: ignore[reportAttributeAccessIssue]
            return module

    return {"outputs": Outputs, "inputs": Inputs}


def _cut(layer: nn.Module, cut: Cut, rank: int, size: int) -> None:
    """Leave a process its part of a linear layer's parameters."""
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(part_of(layer.weight.detach(), cut, rank, size))
    if cut.of == "outputs":
        layer.out_features //= size
        if layer.bias is not None:
            layer.bias = nn.Parameter(part_of(layer.bias.detach(), cut, rank, size))
    else:
        layer.in_features //= size


def _added(layer: nn.Linear, group: dist.ProcessGroup, x: Tensor) -> Tensor:
    """A linear layer of which each process has some of the inputs; its bias counts once."""
    y = _Leave.apply(F.linear(x, layer.weight), group)
    assert isinstance(y, Tensor)
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


class _Enter(torch.autograd.Function):
    """What all have goes to each; gradients come back from all, and are added up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Leave(torch.autograd.Function):
    """Parts of a sum are added up; its gradient goes to each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
