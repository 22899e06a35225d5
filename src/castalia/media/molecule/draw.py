"""Molecules as drawings in a grid, each with its properties."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from castalia.chemistry.molecules import Mol
from castalia.chemistry.properties import accessibility, logp, qed
from castalia.core.errors import UsageError

_WIDE, _TALL, _FOOT = 220, 180, 20
_PAGE, _TEXT, _DIM = (255, 255, 255), (30, 30, 40), (150, 150, 160)


def molecules_image(mols: Sequence[Mol | None], columns: int | None = None) -> Image.Image:
    """Draw molecules in rows; where chemistry allows none the place says so.

    Args:
        mols: at least one.
        columns: molecules per row; None for about a square.

    Returns:
        A picture of mode RGB.
    """
    if not len(mols):
        raise UsageError("A drawing needs at least one molecule.")
    if columns is not None and columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    columns = min(columns or math.ceil(math.sqrt(len(mols))), len(mols))
    rows = math.ceil(len(mols) / columns)
    page = Image.new("RGB", (columns * _WIDE, rows * (_TALL + _FOOT)), _PAGE)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for i, mol in enumerate(mols):
        left, top = i % columns * _WIDE, i // columns * (_TALL + _FOOT)
        if mol is None:
            draw.text((left + _WIDE // 2, top + _TALL // 2), "no molecule", fill=_DIM, font=font, anchor="mm")
            continue
        page.paste(molecule_image(mol, _WIDE, _TALL), (left, top))
        said = f"QED {qed(mol):.2f}   logP {logp(mol):.1f}   SA {accessibility(mol):.1f}"
        draw.text((left + _WIDE // 2, top + _TALL + 6), said, fill=_TEXT, font=font, anchor="mm")
    return page


def molecule_image(mol: Mol, width: int, height: int) -> Image.Image:
    """One molecule, mode RGB."""
    import io

    from rdkit.Chem.Draw import rdMolDraw2D

    canvas = rdMolDraw2D.MolDraw2DCairo(width, height)
    canvas.drawOptions().padding = 0.12
    canvas.drawOptions().fixedBondLength = 26
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, mol)
    canvas.FinishDrawing()
    return Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB")
