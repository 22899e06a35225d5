"""The first five minutes with a folder of one's own: ``python -m benchmarks.folders``.

    python -m benchmarks.folders letters --fonts /usr/share/fonts --out runs/folders --json FILE
    python -m benchmarks.folders patches --out runs/folders --json FILE

A folder of pictures is made, ``castalia train SYSTEM --data FOLDER --minutes 5`` is run as a person would with no other
option, and the run is measured beside pictures that it had no way to see: letters of other fonts, and the other part of
the photographs. Told are also what the run promised: its plan, and the time left after its first minute.

``--busy N`` runs N programs that only count beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import castalia

LETTERS = "ABCDEFGHIJ"
SIDE = 32
JUDGES = 4
"""Every so many-th family of fonts is kept for judging."""

PATCH, PATCHES = 32, 600
LEFT = re.compile(r"(\d+):(\d\d) (min|h) left")
STEP = re.compile(r"^step ([\d,]+) of ([\d,]+)")
COUNTING = "while True: pass"
STYLES = re.compile(r"(bold|oblique|italic|regular|light|medium|condensed|narrow|display|beta|\d\d)+$")
NO_LETTERS = ("symbol", "d050000l", "dingbat")
"""Fonts that draw other things in the places of letters."""


def letters(fonts: Path, out: Path) -> tuple[Path, Path]:
    """Folders of letters by class: of three quarters of the families, and of the others.

    Raises:
        SystemExit: there are fewer than eight families.
    """
    seen: set[bytes] = set()
    families: dict[str, list[list[Image.Image]]] = {}
    for path in sorted(p for p in fonts.rglob("*") if p.suffix.lower() in (".ttf", ".otf", ".t1", ".pfb")):
        try:
            font = ImageFont.truetype(str(path), 26)
            drawn = [_glyph(font, letter) for letter in LETTERS]
            nothing = _glyph(font, "\ue123")
        except OSError:
            continue
        key = b"".join(one.tobytes() for one in drawn)
        strange = {one.tobytes() for one in drawn}
        if key in seen or nothing.tobytes() in strange or len(strange) < len(LETTERS):  # no letters in it
            continue
        seen.add(key)
        family = STYLES.sub("", re.split(r"[-_ ]", path.stem)[0].lower())
        if not any(word in family for word in NO_LETTERS):
            families.setdefault(family, []).append(drawn)
    if len(families) < 2 * JUDGES:
        raise SystemExit(f"Only {len(families)} families of fonts below {fonts}; at least {2 * JUDGES} are needed.")
    for number, name in enumerate(sorted(families)):
        part = out / ("judges" if number % JUDGES == JUDGES - 1 else "own")
        for style, drawn in enumerate(families[name][:4]):  # a family of thirty styles would be most of the folder
            for letter, picture in zip(LETTERS, drawn, strict=True):
                (part / letter).mkdir(parents=True, exist_ok=True)
                picture.save(part / letter / f"{name}-{style}.png")
    return out / "own", out / "judges"


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image:
    picture = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(picture).text((SIDE / 2, SIDE / 2), letter, fill=0, font=font, anchor="mm")
    return picture


def patches(out: Path) -> tuple[Path, Path]:
    """Patches of the two photographs that scikit-learn carries: of their left two thirds, and of the rest."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for number, photo in enumerate(load_sample_images().images):
        cut = photo.shape[1] * 2 // 3
        for part, region, count in (
            ("own", photo[:, :cut], PATCHES // 2),
            ("judges", photo[:, cut:], PATCHES // 4),
        ):
            (out / part).mkdir(parents=True, exist_ok=True)
            half = Image.fromarray(region).resize(
                (region.shape[1] // 2, region.shape[0] // 2), Image.Resampling.LANCZOS
            )
            pixels = np.asarray(half)
            for i in range(count):
                y, x = (int(rng.integers(0, size - PATCH + 1)) for size in pixels.shape[:2])
                Image.fromarray(pixels[y : y + PATCH, x : x + PATCH]).save(out / part / f"{number}-{i:03d}.png")
    return out / "own", out / "judges"


def trained(system: str, folder: Path, minutes: float, out: Path) -> dict[str, Any]:
    """Train as a person would; what was promised on the way, and what was kept of it."""
    command = ["train", system, "--data", str(folder), "--minutes", f"{minutes:g}", "--out", str(out)]
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "castalia", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    left: tuple[float, float] | None = None
    said, first, last = [], 0, (0, 0)
    assert child.stdout is not None
    for line in child.stdout:
        now = time.monotonic() - began
        if found := STEP.match(line):
            last = (int(found[1].replace(",", "")), int(found[2].replace(",", "")))
            first = first or last[1]
        elif not found:
            said.append(line.rstrip())
        if left is None and now >= 60 and (found := LEFT.search(line)):
            unit = 60 if found[3] == "min" else 3600
            left = (now, int(found[1]) * unit + int(found[2]) * unit / 60)
    if child.wait():
        raise SystemExit("\n".join(["castalia " + " ".join(command), *said[-20:]]))
    seconds = time.monotonic() - began
    run = castalia.load(out)
    return {
        "command": "castalia " + " ".join(command),
        "recipe": next((word for line in said if line.startswith("Chosen: ") for word in [line[8:].split(",")[0]]), ""),
        "seconds": seconds,
        "steps": run.steps_done(),
        "planned": run.planned(),
        "planned_first": first,
        "left_off": None if left is None else left[0] + left[1] - seconds,
        "left_of": None if left is None else seconds - left[0],
    }


def measured(out: Path, judges: Path, drawn: int) -> dict[str, Any]:
    """Numbers of a run beside pictures of nobody's training, with the verdict in words."""
    from castalia import health

    metrics = castalia.evaluate(out, str(judges), split="all", drawn=drawn, baselines=True, samples=20)["metrics"]
    kept = {name: one["value"] for name, one in metrics.items() if not name.endswith("_speed")}
    return {"verdict": health.lines(castalia.load(out), metrics), "metrics": kept}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """``count`` programs that only count."""
    others = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> int:
    """Draw, train, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folders", description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("letters", "patches"))
    parser.add_argument("--systems", nargs="+", default=["vae", "gan", "ddpm", "edm"])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--drawn", type=int, default=300)
    parser.add_argument("--busy", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    place = options.out / options.what
    own, judges = letters(options.fonts, place) if options.what == "letters" else patches(place)
    rows = []
    for system in options.systems:
        out = options.out / f"{options.what}-{system}"
        with busy(options.busy):
            row = {"data": options.what, "system": system, "busy": options.busy}
            row |= trained(system, own, options.minutes, out)
        row |= measured(out, judges, options.drawn)
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
