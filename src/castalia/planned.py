"""``castalia plan``: what a training would need on devices that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from castalia import api
from castalia.catalogue import entry
from castalia.configuration import Recipe
from castalia.core.config import Config
from castalia.core.errors import UsageError
from castalia.core.precision import Precision
from castalia.core.specs.text import TextSpec
from castalia.making import make_recipe
from castalia.media.text.packing import TextOptions
from castalia.models.sequence.gpt2 import GPT2Config
from castalia.models.sequence.gpt_modern import GPTModernConfig
from castalia.training import costs
from castalia.training.forecast import Forecast, Layout, Memory, forecast
from castalia.training.machines import Machine, machine


def plan(
    model: str | None = None,
    data: str | None = None,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    layout: Layout | None = None,
    device: str | Machine = "h100",
    precision: Precision = "bfloat16",
    utilisation: float = 0.4,
) -> Forecast:
    """Foresee memory, operations, what is sent and tokens per second of a training.

    Args:
        model: ``gpt2``, ``gpt3`` or ``gpt-modern``; may be left out where ``recipe`` is given.
        data: what would be trained on; may be left out where ``recipe`` is given.
        recipe: name of a recipe.
        settings: changes as ``path.to.field=value`` texts.
        layout: how it is spread over devices; None: one device.
        device: a name, see :data:`castalia.training.machines.MACHINES`, or the numbers of one.
        precision: of matrix products.
        utilisation: share of the device's peak that is reached.

    Raises:
        UsageError: an unknown name, another system, or a batch or heads that cannot be shared so.
    """
    if recipe is None and data is None:
        raise UsageError("Say which recipe to plan with --recipe, or what on with --data. See: castalia models gpt3")
    made = make_recipe(model, data, recipe=recipe, settings=settings)
    kind = entry(made.model).load()
    on = machine(device) if isinstance(device, str) else device
    if kind not in costs.KNOWN:
        raise UsageError(f"castalia plan knows gpt2, gpt3 and gpt-modern; what {made.model} costs is not worked out.")
    counted = costs.of_system(kind, _known(made.config), shape(made), precision)
    heads = _known(made.config).heads
    return forecast(
        counted, made.training, layout or Layout(), on, heads=heads, precision=precision, utilisation=utilisation
    )


def _known(config: Config) -> GPT2Config | GPTModernConfig:
    assert isinstance(config, GPT2Config | GPTModernConfig)
    return config


def shape(recipe: Recipe) -> TextSpec:
    """The shape of a recipe's texts; they are read only where their alphabet is not known without."""
    options = recipe.data.options
    assert isinstance(options, TextOptions)
    marks = 3 if options.middle else 0
    if options.tokens == "bytes":
        return TextSpec("bytes", 257 + marks, options.length, middles=bool(marks))
    if options.tokens == "bpe":
        return TextSpec("bytes", options.vocabulary + marks, options.length, middles=bool(marks))
    spec = api.training_data(recipe).spec
    assert isinstance(spec, TextSpec)
    return replace(spec, classes=())


def told(found: Forecast) -> str:
    """A forecast as lines for people."""
    l, m = found.layout, found.machine
    again = "computed again" if l.recompute else "kept"
    lines = [
        f"{found.parameters:,} parameters; {l.devices:,} x {m.name}: {l.replicas} replicas x {l.shards} shards x "
        f"{l.tensor} that share each block",
        f"{found.precision}; {l.micro} windows at a time, {found.accumulate} times a step (training.accumulate); "
        f"activations of blocks are {again}",
        "",
        "memory of one device",
        *(f"  {name:<18}{size(value):>12}" for name, value in _parts(found.memory)),
        f"  {'total':<18}{size(found.memory.total):>12}   of {size(m.memory)}"
        + ("" if found.fits else ": does not fit"),
        f"  {'otherwise':<18}{size(found.memory_otherwise.total):>12}   were activations "
        + ("kept" if l.recompute else "computed again (training.recompute)"),
        f"  {'cache':<18}{size(found.cache):>12}   for each text that is written, with a full context",
        "",
        "a step",
        f"  {'tokens':<18}{found.tokens_per_step:>12,}",
        f"  {'operations':<18}{found.operations:>12.3g}"
        + (f"   and {found.recomputed:.3g} computed again" if found.recomputed else ""),
        *(f"  {'sent: ' + name:<18}{size(value):>12}   by each device" for name, value in found.sent.items() if value),
        f"  {'seconds':<18}{found.seconds:>12.3g}   at {100 * found.utilisation:g} % of the peak",
        f"  {'sending':<18}{found.sending:>12.3g}   seconds, were nothing else to be done",
        "",
        f"{found.tokens_per_second:,.0f} tokens per second, {found.tokens_per_second / l.devices:,.0f} of each device",
        f"{found.tokens:.3g} tokens: {found.operations / found.tokens_per_step * found.tokens:.3g} operations, "
        f"{found.days:,.3g} days",
        f"writing: at most {found.writing:,.0f} tokens per second of one text, when every one reads the matrices and a "
        "full cache",
    ]
    if found.sending > found.seconds:
        lines.append(
            "Note: sending takes longer than a step at this utilisation, which cannot be reached so. More windows at a "
            "time (--micro), or fewer shards or processes that share a block, send less."
        )
    return "\n".join(lines)


def _parts(memory: Memory) -> list[tuple[str, float]]:
    """The parts of a memory that there are."""
    return [(name.replace("_", " "), value) for name, value in vars(memory).items() if value]


def size(count: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.2f} {unit}"
        count /= 1000
    raise AssertionError
