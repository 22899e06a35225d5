"""The verbs between Castalia and other programs.

Imports stand inside the functions, so that a verb pays only for what it uses.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from castalia.core.errors import UsageError


def export(options: Namespace) -> int:
    """Write a run for use elsewhere."""
    from castalia import api, verbs

    if options.to_hub:
        from castalia.interop import hub

        print(f"Uploaded to {hub.export_hub(api.load(options.run), options.to_hub)}")
        return 0
    if not options.out:
        raise UsageError("Say where to write with --out (or --to-hub).")
    wishes = {"label": options.label, "drop_variance": options.drop_variance}
    for parity in verbs.export(options.run, options.out, options.format, **wishes):
        print(f"{parity.call}: differs from the model by at most {parity.max_abs_error:.2g}")
    print(f"Exported to {Path(options.out)}/")
    return 0


def import_(options: Namespace) -> int:
    """Make a run from an exported folder."""
    from castalia.interop import folder, hub
    from castalia.interop.diffusers import has_parts, looks_like_diffusers
    from castalia.interop.gpt2 import looks_like_gpt2
    from castalia.interop.received import SUMS

    out = Path(options.out)
    if options.source.startswith("hf://"):
        made = hub.import_hub(options.source, out)
    elif options.start is not None:
        from castalia import api
        from castalia.interop.diffusers_systems import import_parts
        from castalia.interop.personal import import_words

        take = import_parts if has_parts(Path(options.source)) else import_words
        made = take(Path(options.source), api.load(options.start), out)
    elif looks_like_diffusers(Path(options.source)):
        from castalia.interop.diffusers_runs import import_diffusers

        made = import_diffusers(Path(options.source), out)
    elif looks_like_gpt2(Path(options.source)):
        from castalia.interop.gpt2_runs import import_gpt2

        made = import_gpt2(Path(options.source), out)
    elif has_parts(Path(options.source)) and not (Path(options.source) / SUMS).exists():
        raise UsageError(f"{options.source} holds parts of a pipeline: say with --start RUN which run they belong to.")
    else:
        made = folder.import_folder(Path(options.source), out)
    print(f"Imported {made.recipe.model} as {made.path}/")
    return 0
