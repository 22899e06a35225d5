"""The verbs of ``castalia edit``: forms made from the table of edits, and what they write."""

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

from castalia.cli import values
from castalia.core.errors import UsageError
from castalia.creative.edit import Option, options_of
from castalia.creative.table import all_edits, edit_of


def add_forms(edits: Any) -> None:
    """Add a parser for every edit; ``edits`` are argparse's subparsers."""
    for edit in all_edits():
        made = edits.add_parser(edit.name, help=edit.help, description=edit.help)
        made.set_defaults(parser=made)
        made.add_argument("run", help="a run folder")
        made.add_argument("--out", type=values.path, required=True, help=edit.out)
        for option in options_of(edit):
            _add(made, option)


def _add(form: argparse.ArgumentParser, option: Option) -> None:
    words: dict[str, Any] = {"help": option.help or None, "metavar": option.metavar}
    if option.kind is bool:
        form.add_argument(option.flag, dest=option.name, action="store_true", help=option.help)
        return
    words["type"] = values.positive if option.least == 1 else {float: values.number}.get(option.kind, option.kind)
    if option.choices:
        del words["metavar"]
        words["choices"] = option.choices
    if not option.flag:
        form.add_argument(option.name, nargs="+" if option.several else None, **words)
    elif option.several:
        form.add_argument(option.flag, dest=option.name, action="append", **words)
    else:
        needed = {"required": True} if option.required else {"default": option.default}
        form.add_argument(option.flag, dest=option.name, **needed, **words)


def run(options: Namespace) -> int:
    """Do the edit that was parsed, and write what it made."""
    from castalia import api, editing

    opened, out = api.load(options.run), Path(options.out)
    for option in options_of(edit_of(options.edit)):
        if getattr(options, option.name) is None and option.several:  # argparse would add to a default, not replace it
            setattr(options, option.name, list(option.default))
    chosen = {option.name: getattr(options, option.name) for option in options_of(edit_of(options.edit))}
    if not out.parent.is_dir():
        raise UsageError(f"The folder {out.parent} of --out does not exist.")
    product = editing.edit(opened, options.edit, **chosen)
    recipe = {
        "model": opened.recipe.model,
        "run": opened.path.name,
        "weights": opened.model()[1],
        "config": api.config_json(opened),
        "edit": {k: v for k, v in vars(options).items() if isinstance(v, str | int | float | list | None)},
    }
    editing.write(product, opened.spec, out, recipe)
    print(f"Written: {out}")
    return 0
