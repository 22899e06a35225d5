"""BVH files: a skeleton, and the angles of its joints in every frame.

The first joint that has places becomes the root, or its only child where that has some too; what stands above it is
folded into it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from castalia.core.errors import DataError
from castalia.core.specs.motion import Joint

LARGEST = 256 << 20
MOST_JOINTS, MOST_FRAMES = 1024, 1_000_000
_AXES = {"Xrotation": "X", "Yrotation": "Y", "Zrotation": "Z"}
_PLACES = {"Xposition": 0, "Yposition": 1, "Zposition": 2}


@dataclass(frozen=True)
class Clip:
    """A recorded motion.

    Attributes:
        joints: the skeleton.
        ends: where bones end: (joint, x, y, z).
        fps: frames a second.
        root: places of the root, ``float64`` (frames, 3).
        turned: rotations ``float64`` (frames, joints, 3, 3), each in its parent's frame.
    """

    joints: tuple[Joint, ...]
    ends: tuple[tuple[int, float, float, float], ...]
    fps: float
    root: np.ndarray
    turned: np.ndarray


@dataclass
class _Node:
    name: str
    parent: int
    line: int
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    channels: tuple[str, ...] = ()
    end: bool = False


class _Words:
    """Words of a text, with the number of the line of each."""

    def __init__(self, text: str, name: str) -> None:
        self.name, self.line, self.at = name, 0, 0
        self.found = [
            (m[0], number) for number, row in enumerate(text.splitlines(), 1) for m in re.finditer(r"\S+", row)
        ]

    def next(self, *wanted: str) -> str:
        if self.at >= len(self.found):
            raise DataError(f"{self.name}: it ends in the middle of the skeleton.")
        word, self.line = self.found[self.at]
        self.at += 1
        if wanted and word not in wanted:
            raise self.wrong(f"{' or '.join(wanted)} is expected, not {word[:40]!r}")
        return word

    def number(self) -> float:
        word = self.next()
        try:
            value = float(word)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise self.wrong(f"a number is expected, not {word[:40]!r}")
        return value

    def wrong(self, what: str) -> DataError:
        return DataError(f"{self.name}, line {self.line}: {what}.")


def read_bvh(data: bytes, name: str) -> Clip:
    """A clip from a BVH file.

    Args:
        data: the file.
        name: what to call it in errors.

    Raises:
        DataError: it is none; the text names the line.
    """
    if len(data) > LARGEST:
        raise DataError(f"{name}: larger than {LARGEST >> 20} MiB.")
    text = data.decode("utf-8", "replace")
    # a joint may be called so too
    found = re.search(r"MOTION(?=\s+Frames:)", text) or re.search(r"MOTION(?!\S)", text)
    head, rest = (text[: found.start()], text[found.end() :]) if found else (text, "")
    if found is None or not head.lstrip("\ufeff \t\r\n").startswith("HIERARCHY"):
        raise DataError(f"{name}: not a BVH file: it has no HIERARCHY with MOTION behind it.")
    nodes = list(_nodes(_Words(head, name)))
    frames, fps = _frames(rest, sum(len(n.channels) for n in nodes), name, head.count("\n") + 1)
    return _clip(nodes, frames, fps, name)


def _nodes(words: _Words) -> Iterator[_Node]:
    words.next("HIERARCHY", "\ufeffHIERARCHY")
    words.next("ROOT")
    stack: list[int] = []
    count, current = 0, _Node(words.next(), -1, words.line)
    while True:
        words.next("{")
        words.next("OFFSET")
        current.offset = (words.number(), words.number(), words.number())
        if not current.end:
            words.next("CHANNELS")
            many = words.number()
            if many not in range(7):
                raise words.wrong(f"a joint has at most six channels, not {many:g}")
            current.channels = tuple(words.next(*_AXES, *_PLACES) for _ in range(int(many)))
            if len(set(current.channels)) != len(current.channels):
                raise words.wrong("a channel is named twice")
        yield current
        stack.append(count)
        count += 1
        if count > 2 * MOST_JOINTS:
            raise words.wrong(f"more than {MOST_JOINTS} joints")
        while True:
            word = words.next("JOINT", "End", "}")
            if word != "}":
                break
            stack.pop()
            if not stack:
                return
        title = words.next() if word == "JOINT" else words.next("Site")
        current = _Node(title, stack[-1], words.line, end=word == "End")


def _frames(text: str, width: int, name: str, first: int) -> tuple[np.ndarray, float]:
    head = re.match(r"\s*Frames:\s*(\d{1,9})\s*Frame Time:\s*(\S+)[ \t]*\r?\n?", text)
    if head is None:
        raise DataError(f"{name}, line {first}: 'Frames: N' and 'Frame Time: SECONDS' are expected behind MOTION.")
    try:
        every = float(head[2])
    except ValueError:
        every = 0.0
    if not 1e-3 <= every <= 10 or not 1 <= int(head[1]) <= MOST_FRAMES:
        raise DataError(f"{name}: {head[1]} frames of {head[2]} seconds are not something that is read.")
    rows = []
    line = first + head[0].count("\n")
    for number, row in enumerate(text[head.end() :].splitlines(), line):
        if not row.strip():
            continue
        try:
            values = np.array(row.split(), np.float64)
        except ValueError as error:
            raise DataError(f"{name}, line {number}: not a row of numbers.") from error
        if len(values) != width or not np.isfinite(values).all():
            raise DataError(f"{name}, line {number}: {width} finite numbers are expected, one for each channel.")
        rows.append(values)
        if len(rows) > MOST_FRAMES:
            raise DataError(f"{name}: more than {MOST_FRAMES:,} frames.")
    if not rows:
        raise DataError(f"{name}: it has no frames.")
    return np.stack(rows), 1 / every


def _clip(nodes: list[_Node], frames: np.ndarray, fps: float, name: str) -> Clip:
    start = np.cumsum([0, *(len(n.channels) for n in nodes)])
    local: list[np.ndarray] = []
    moved: list[np.ndarray] = []
    for i, node in enumerate(nodes):
        axes = "".join(_AXES[c] for c in node.channels if c in _AXES)
        angles = frames[:, [start[i] + k for k, c in enumerate(node.channels) if c in _AXES]]
        turned = Rotation.from_euler(axes, angles, degrees=True).as_matrix() if axes else np.eye(3)[None]
        local.append(np.broadcast_to(turned.reshape(-1, 3, 3), (len(frames), 3, 3)))
        place = np.broadcast_to(np.array(node.offset), (len(frames), 3)).copy()
        for k, channel in enumerate(node.channels):
            if channel in _PLACES:
                place[:, _PLACES[channel]] = frames[:, start[i] + k]
        moved.append(place)
    root = next((i for i, n in enumerate(nodes) if any(c in _PLACES for c in n.channels)), 0)
    while len(below := [i for i, n in enumerate(nodes) if n.parent == root]) == 1 and any(
        c in _PLACES for c in nodes[below[0]].channels
    ):
        if len(frames) > 1 and _still(moved[below[0]]):  # a bone, whose places are its offset again and again
            break
        root = below[0]
    place, turned = moved[root], local[root]
    above = nodes[root].parent
    while above >= 0:  # whatever stands above the root is folded into it
        place = moved[above] + np.einsum("tij,tj->ti", local[above], place)
        turned = local[above] @ turned
        above = nodes[above].parent
    number, joints, ends, order = {root: 0}, [Joint(nodes[root].name, -1, (0.0, 0.0, 0.0))], [], [root]
    for i, node in enumerate(nodes):
        if node.parent not in number or i == root:
            continue
        if node.end:
            ends.append((number[node.parent], *node.offset))
        else:
            number[i] = len(joints)
            joints.append(Joint(node.name, number[node.parent], _offset(node, moved[i], name)))
            order.append(i)
    if len(joints) > MOST_JOINTS:
        raise DataError(f"{name}: more than {MOST_JOINTS} joints.")
    rotations = np.stack([turned, *(local[i] for i in order[1:])], 1)
    return Clip(tuple(joints), tuple(end for end in ends if any(end[1:])), fps, place, rotations)


def _offset(node: _Node, places: np.ndarray, name: str) -> tuple[float, float, float]:
    """Where a joint is in its parent's frame: its offset, or the mean of its places (frames, 3) where it has some."""
    if not any(c in _PLACES for c in node.channels):
        return node.offset
    mean = places.mean(0)
    if not _still(places):
        warnings.warn(
            f"{name}: the bone to {node.name} changes its length; its mean is taken, because bones here are stiff.",
            stacklevel=2,
        )
    return float(mean[0]), float(mean[1]), float(mean[2])


def _still(places: np.ndarray) -> bool:
    """Whether places (frames, 3) stay within a hundredth of their distance."""
    mean = places.mean(0)
    return float(np.abs(places - mean).max()) <= 0.01 * max(float(np.linalg.norm(mean)), 1e-6)


def bvh_text(clip: Clip) -> str:
    """A BVH file of a clip; angles in degrees with six decimals, about z, x and y in that order."""
    children: dict[int, list[int]] = {}
    for i, joint in enumerate(clip.joints):
        children.setdefault(joint.parent, []).append(i)
    ends = {end[0]: end[1:] for end in clip.ends}
    lines, order = ["HIERARCHY"], []

    def write(i: int, depth: int) -> None:
        pad, joint = "  " * depth, clip.joints[i]
        order.append(i)
        lines.append(f"{pad}{'JOINT' if i else 'ROOT'} {joint.name}")
        places = "" if i else "Xposition Yposition Zposition "
        lines.extend([f"{pad}{{", f"{pad}  OFFSET {_row(joint.offset)}"])
        lines.append(f"{pad}  CHANNELS {3 if i else 6} {places}Zrotation Xrotation Yrotation")
        for child in children.get(i, ()):
            write(child, depth + 1)
        if i in ends or not children.get(i):
            stop = _row(ends.get(i, (0.0, 0.0, 0.0)))
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {stop}", f"{pad}  }}"])
        lines.append(f"{pad}}}")

    write(0, 0)
    frames = len(clip.root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where x is 90 degrees, several angles are the same rotation
        angles = Rotation.from_matrix(clip.turned[:, order].reshape(-1, 3, 3)).as_euler("ZXY", degrees=True)
    table = np.concatenate([clip.root, angles.reshape(frames, -1)], 1)
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {1 / clip.fps:.9g}"]
    lines += [_row(row) for row in table]
    return "\n".join(lines) + "\n"


def _row(values: np.ndarray | tuple[float, ...]) -> str:
    return " ".join(f"{v:.6f}".rstrip("0").rstrip(".") for v in values)
