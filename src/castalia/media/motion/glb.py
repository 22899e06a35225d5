"""A moving body as GLB (binary glTF 2.0): a box on every bone, and an animation that Blender and browsers play."""

from __future__ import annotations

import json
import struct

import numpy as np
from scipy.spatial.transform import Rotation

from castalia.media.motion.bvh import Clip

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)], np.float32)
_SIDES = np.array(
    [
        *((0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)),
        *((2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)),
    ],
    np.uint16,
)
_FLOAT, _SHORT = 5126, 5123


def glb_bytes(clip: Clip, metres: float = 0.01) -> bytes:
    """The file.

    Args:
        clip: what moves.
        metres: length of the clip's unit; BVH has centimetres as a rule.
    """
    data, views, accessors = bytearray(), [], []

    def store(table: np.ndarray, kind: str, target: int | None = None) -> int:
        while len(data) % 4:
            data.append(0)
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": table.nbytes})
        if target is not None:
            views[-1]["target"] = target
        data.extend(np.ascontiguousarray(table).tobytes())
        flat = table.reshape(len(table), -1)
        accessors.append(
            {
                "bufferView": len(views) - 1,
                "componentType": _SHORT if table.dtype == np.uint16 else _FLOAT,
                "count": len(table),
                "type": kind,
                "min": flat.min(0).tolist(),
                "max": flat.max(0).tolist(),
            }
        )
        return len(accessors) - 1

    corners = store(_CORNERS, "VEC3", 34962)
    sides = store(_SIDES.reshape(-1, 1), "SCALAR", 34963)
    nodes: list[dict] = [{"name": joint.name, "translation": _scaled(joint.offset, metres)} for joint in clip.joints]
    for i, joint in enumerate(clip.joints):
        if joint.parent >= 0:
            nodes[joint.parent].setdefault("children", []).append(i)
    stretches = [(joint.parent, joint.offset) for joint in clip.joints[1:]] + [(end[0], end[1:]) for end in clip.ends]
    for place, offset in stretches:
        length = float(np.linalg.norm(offset)) * metres
        if length < 1e-6:
            continue
        nodes[place].setdefault("children", []).append(len(nodes))
        turn = Rotation.align_vectors([offset], [[0.0, 0.0, 1.0]])[0].as_quat()
        thick = min(0.25 * length, 0.08) + 0.01
        nodes.append({"mesh": 0, "rotation": turn.tolist(), "scale": [thick, thick, length]})
    times = store((np.arange(len(clip.root)) / clip.fps).astype(np.float32).reshape(-1, 1), "SCALAR")
    moves = store((clip.root * metres).astype(np.float32), "VEC3")
    samplers = [{"input": times, "output": moves, "interpolation": "LINEAR"}]
    channels = [{"sampler": 0, "target": {"node": 0, "path": "translation"}}]
    for j in range(len(clip.joints)):
        turned = store(_steady(Rotation.from_matrix(clip.turned[:, j]).as_quat()).astype(np.float32), "VEC4")
        channels.append({"sampler": len(samplers), "target": {"node": j, "path": "rotation"}})
        samplers.append({"input": times, "output": turned, "interpolation": "LINEAR"})
    while len(data) % 4:
        data.append(0)
    scene = {
        "asset": {"version": "2.0", "generator": "castalia"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": corners}, "indices": sides, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.7, 0.6, 1], "metallicFactor": 0}}],
        "animations": [{"name": "motion", "samplers": samplers, "channels": channels}],
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + bytes(data)
    return struct.pack("<III", 0x46546C67, 2, 12 + len(parts)) + parts


def _scaled(offset: tuple[float, ...], metres: float) -> list[float]:
    return [v * metres for v in offset]


def _steady(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations with signs that do not flip between frames, so that lines between them are short."""
    out = quaternions.copy()
    for t in range(1, len(out)):
        if out[t] @ out[t - 1] < 0:
            out[t] = -out[t]
    return out
