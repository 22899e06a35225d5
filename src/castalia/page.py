"""Self-contained HTML pages: text, tables, pictures and curves in one file that needs nothing from elsewhere.

Everything that is put on a page is escaped, for names and captions may come from files that somebody else
wrote; a content policy in the page forbids scripts and outside resources on top of that.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from castalia.core.files import write_bytes
from castalia.health import WORDS, better

Cell = str | int | float | None
Series = Mapping[str, Sequence[tuple[float, float]]]

_DATA_URI = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+=*")

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --ink: #22252b; --soft: #6a707c; --line: #dddfe3;
  --panel: #ffffff;
  --c0: #1f5fae; --c1: #c4511b; --c2: #2c8a57; --c3: #8a4fae; --c4: #a8841a; --c5: #b03060; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea; --soft: #9aa1ad;
  --line: #343941; --panel: #1e2127;
  --c0: #7fb2f0; --c1: #f0935c; --c2: #6fcf97; --c3: #c79af0; --c4: #e0c062; --c5: #f08aae; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; max-width: 44rem; white-space: pre-line; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; padding: .9rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; image-rendering: pixelated; }
figure svg { display: block; width: 100%; height: auto; }
figcaption, .note { color: var(--soft); font-size: .9rem; margin-top: .6rem; overflow-wrap: anywhere; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; margin: 1rem 0; }
.gallery figure { margin: 0; }
.gallery img { width: 100%; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .5rem; margin: 1rem 0 1.5rem; }
nav a { color: var(--c0); text-decoration: none; border: 1px solid var(--line); border-radius: 99px;
  padding: .15rem .7rem; font-size: .9rem; background: var(--panel); }
progress { width: 100%; height: .8rem; accent-color: var(--c0); }
details { margin: 1rem 0; border: 1px solid var(--line); border-radius: 10px; padding: .6rem .9rem; }
summary { cursor: pointer; color: var(--soft); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: .8rem;
  overflow-x: auto; font: .88rem/1.5 ui-monospace, monospace; }
.tick, .label { fill: var(--soft); font: 12px system-ui, sans-serif; }
@media (max-width: 36rem) { .tick, .label { font-size: 19px; } }
.grid { stroke: var(--line); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .88rem; margin-bottom: .4rem; }
.legend i { display: inline-block; width: 1.1rem; height: 3px; margin-right: .4rem; vertical-align: middle; }
"""

_COLOURS = 6

SUFFIXES = ("_floor", "_ceiling")
"""Metrics that belong to the data and not to a run, and stand beside the run's."""


class Page:
    """One page, filled from top to bottom; each method adds one element and returns the page.

    Args:
        title: heading and window title.
        renewed: seconds after which a browser loads it again; None: never.
    """

    def __init__(self, title: str, *, renewed: float | None = None) -> None:
        self.title, self.renewed = title, renewed
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> Page:
        """Begin a section that the navigation at the top of the page leads to."""
        self._sections.append(title)
        return self._add(f'<h2 id="s{len(self._sections)}">{escape(title)}</h2>')

    def progress(self, share: float) -> Page:
        """Add a bar that is filled by a share, 0 to 1."""
        return self._add(f'<progress value="{min(max(share, 0.0), 1.0):.4f}" max="1"></progress>')

    def gallery(self, pictures: Sequence[tuple[bytes, str]]) -> Page:
        """Add pictures side by side, each the bytes of a PNG or GIF file with a caption."""
        figures = "".join(
            f'<figure><img src="{_uri(data)}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'
            for data, text in pictures
        )
        return self._add(f'<div class="gallery">{figures}</div>')

    def fold(self, title: str) -> Page:
        """Begin a part that is folded until somebody opens it; :meth:`unfold` ends it."""
        return self._add(f"<details><summary>{escape(title)}</summary>")

    def unfold(self) -> Page:
        """End a folded part."""
        return self._add("</details>")

    def heading(self, text: str, level: int = 2) -> Page:
        """Add a heading of level 2 or 3."""
        if level not in (2, 3):
            raise ValueError(f"a heading has level 2 or 3, not {level}")
        return self._add(f"<h{level}>{escape(text)}</h{level}>")

    def text(self, text: str) -> Page:
        """Add a paragraph; line breaks are kept."""
        return self._add(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> Page:
        """Add text to be copied as it is, such as commands."""
        return self._add(f"<pre><code>{escape(text)}</code></pre>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> Page:
        """Add a table. Columns of numbers are aligned to the right; None is shown as a dash.

        Raises:
            ValueError: a row is longer or shorter than the header.
        """
        if any(len(row) != len(header) for row in rows):
            raise ValueError(f"every row of the table needs {len(header)} cells")
        columns = range(len(header))
        numeric = [
            any(_is_number(row[c]) for row in rows) and all(row[c] is None or _is_number(row[c]) for row in rows)
            for c in columns
        ]
        mark = [' class="number"' if n else "" for n in numeric]
        head = "".join(f'<th scope="col"{mark[c]}>{escape(header[c])}</th>' for c in columns)
        body = "".join(
            "<tr>" + "".join(f"<td{mark[c]}>{escape(_cell(row[c]))}</td>" for c in columns) + "</tr>" for row in rows
        )
        note = f'<p class="note">{escape(caption)}</p>' if caption else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return self._add(f'<div class="wide">{table}{note}</div>')

    def metrics(self, runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Page:
        """Add a table of measurements: a row for each metric and unit, a column for each run, then what real data and a
        trivial model get. The best of several runs has a star.

        Args:
            runs: metrics by name, as ``results.json`` has them, for each run by its name.
        """
        names = dict.fromkeys(name for m in runs.values() for name in m if not name.endswith(SUFFIXES))
        rows: list[list[Cell]] = []
        for name in names:
            # a row for each unit: what two runs measure in different ones is not to be compared
            for unit in dict.fromkeys(m[name]["unit"] for m in runs.values() if name in m):
                mine = [m if name in m and m[name]["unit"] == unit else {} for m in runs.values()]
                shared = [next((m[name + s] for m in mine if name + s in m), None) for s in SUFFIXES]
                best = _best(name, [m.get(name) for m in mine])
                stars = [" ★" if i == best else "" for i in range(len(mine))]
                cells = [
                    f"{_measured(m[name])}{star}" if name in m else None for m, star in zip(mine, stars, strict=True)
                ]
                rows.append([name, unit, *cells, *map(_measured, shared)])
        return self.table(
            ["metric", "unit", *runs, *WORDS.values()],
            rows,
            "In brackets 95 % intervals; a star is the best of a row. Real data: what real examples get against other "
            "real ones. Trivial model: what one gets that knows nothing but how often each value occurs. A dash: there "
            "is no such number.",
        )

    def figure(self, data_uri: str, caption: str = "") -> Page:
        """Add a picture given as a ``data:image/...;base64,`` address.

        Raises:
            ValueError: the address is another one; the page would depend on, or run, something outside it.
        """
        if not _DATA_URI.fullmatch(data_uri):
            raise ValueError("a figure needs a data:image/(png|jpeg|webp|gif);base64 address")
        note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(f'<figure><img src="{data_uri}" alt="{escape(caption)}">{note}</figure>')

    def png(self, data: bytes, caption: str = "") -> Page:
        """Add a picture given as the bytes of a PNG or GIF file."""
        return self.figure(_uri(data), caption)

    def curve(self, series: Series, xlabel: str, ylabel: str, caption: str = "", *, log: bool = False) -> Page:
        """Add curves over one pair of axes, as a drawing.

        Args:
            series: name to points (x, y); points that are not finite leave a gap.
            xlabel: name and unit of the horizontal axis.
            ylabel: name and unit of the vertical axis.
            caption: a sentence below.
            log: both axes are logarithmic, and every point has a dot; points that are not positive leave a gap.
        """
        legend = "".join(
            f'<span><i style="background:var(--c{i % _COLOURS})"></i>{escape(name)}</span>'
            for i, name in enumerate(series)
        )
        note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        return self._add(
            f'<figure><div class="legend">{legend}</div>{curve_svg(series, xlabel, ylabel, log=log)}{note}</figure>'
        )

    def html(self) -> str:
        """The whole page."""
        title = escape(self.title)
        again = "" if self.renewed is None else f'<meta http-equiv="refresh" content="{self.renewed:.0f}">\n'
        links = "".join(f'<a href="#s{i}">{escape(name)}</a>' for i, name in enumerate(self._sections, 1))
        navigation = f"<nav>{links}</nav>" if links else ""
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"{again}<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n{navigation}\n"
            + "\n".join(self._parts)
            + "\n</main></body></html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page, replacing the file in one step.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        # a lone surrogate from a damaged file name must not keep the page from being written
        write_bytes(path, self.html().encode("utf-8", "replace"))

    def _add(self, part: str) -> Page:
        self._parts.append(part)
        return self


def _uri(data: bytes) -> str:
    """The bytes of a PNG or GIF file as an address."""
    kind = "gif" if data[:4] == b"GIF8" else "png"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def _best(name: str, found: Sequence[Mapping[str, Any] | None]) -> int | None:
    """Which of several measurements of one thing is the best; None where there is one, or that cannot be said."""
    values = [(better(name) * m["value"], i) for i, m in enumerate(found) if m is not None]
    return max(values)[1] if len(values) > 1 and better(name) else None


def _measured(metric: Mapping[str, Any] | None) -> str | None:
    if metric is None:
        return None
    interval = metric["interval"]
    return f"{metric['value']:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")


def _is_number(value: Cell) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Cell) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if _is_number(value) else str(value)


LARGEST = 1e100
"""Values that are larger are not drawn."""

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 340, 72, 48, 12, 32


def curve_svg(series: Series, xlabel: str, ylabel: str, *, log: bool = False) -> str:
    """Draw curves as SVG text with axes, ticks and labels, but without a legend."""
    if log:
        series = {name: [(_log10(x), _log10(y)) for x, y in line] for name, line in series.items()}
    points = [p for line in series.values() for p in line if _drawable(p)]
    x_ticks = ticks(min((p[0] for p in points), default=0.0), max((p[0] for p in points), default=1.0), 7)
    y_ticks = ticks(min((p[1] for p in points), default=0.0), max((p[1] for p in points), default=1.0), 6)

    def across(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - BOTTOM - TOP)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{ylabel} over {xlabel}")}">']
    for x in x_ticks:
        at = f'x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        out.append(f'<text class="tick" {at} text-anchor="middle">{_tick(x, log)}</text>')
    for y in y_ticks:
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{_tick(y, log)}</text>')
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text class="label" x="{middle_x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(xlabel)}</text>')
    out.append(
        f'<text class="label" x="14" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle_y})">{escape(ylabel)}</text>'
    )
    for i, line in enumerate(series.values()):
        path, pen = [], "M"
        for x, y in line:
            if not _drawable((x, y)):
                pen = "M"
                continue
            path.append(f"{pen}{across(x):.1f} {down(y):.1f}")
            pen = "L"
        if log or len(path) == 1:  # a single point has no length: a dot shows it
            for x, y in (point[1:].split() for point in path):
                out.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="var(--c{i % _COLOURS})"/>')
        if len(path) > 1:
            out.append(f'<path class="curve" stroke="var(--c{i % _COLOURS})" d="{" ".join(path)}"/>')
    return "".join(out) + "</svg>"


def _drawable(point: tuple[float, float]) -> bool:
    """Whether a point is finite, and so is what one computes with it."""
    return all(math.isfinite(v) and abs(v) < LARGEST for v in point)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else math.nan


def _tick(value: float, log: bool) -> str:
    return f"{10**value:.2g}" if log else f"{value:.6g}"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round positions that enclose [low, high], about ``about`` of them, in rising order; at least two."""
    if not low < high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / (about - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) if step > 1e-9 else i * step for i in range(first, last + 1)]
