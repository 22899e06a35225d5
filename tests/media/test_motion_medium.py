"""Motion: BVH both ways, skeletons, windows, films, GLB, measures."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from castalia.core.errors import DataError, UsageError
from castalia.core.specs.motion import Joint, MotionSpec
from castalia.media.motion.bvh import Clip, bvh_text, read_bvh
from castalia.media.motion.draw import film, places_of
from castalia.media.motion.glb import glb_bytes
from castalia.media.motion.measures import _Judge, features, frechet, jerk, sliding
from castalia.media.motion.medium import MotionMedium
from castalia.media.motion.read import (
    MotionOptions,
    Motions,
    aligned,
    clip_of,
    frames_of,
    heading,
    open_motion,
    resampled,
)
from castalia.media.motion.sets import walkers
from castalia.media.named import open_data
from castalia.nn.skeletons import Skeleton, bones, matrices, mirrored, six_of

MEDIUM = MotionMedium()
BVH = """HIERARCHY
ROOT World
{
  OFFSET 0 0 0
  CHANNELS 3 Zrotation Xrotation Yrotation
  JOINT Hips
  {
    OFFSET 1 2 3
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    JOINT Leg_L
    {
      OFFSET 4 -10 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 -40 0
      }
    }
    JOINT Leg_R
    {
      OFFSET -4 -10 0
      CHANNELS 3 Yrotation Xrotation Zrotation
      End Site
      {
        OFFSET 0 -40 0
      }
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.0333333
0 0 0 5 90 7 10 20 30 1 2 3 30 20 10
0 0 90 5 91 8 10 20 30 1 2 3 30 20 10
0 0 0 6 92 9 -170 80 179 90 -90 0 0 0 0
"""


def clip() -> Clip:
    return read_bvh(BVH.encode(), "a.bvh")


def test_a_file_is_read_as_it_says() -> None:
    found = clip()
    assert [joint.name for joint in found.joints] == ["Hips", "Leg_L", "Leg_R"]
    assert [joint.parent for joint in found.joints] == [-1, 0, 0]
    assert found.ends == ((1, 0.0, -40.0, 0.0), (2, 0.0, -40.0, 0.0))
    assert found.fps == pytest.approx(30, abs=0.001)
    np.testing.assert_allclose(found.root[0], [5, 90, 7])
    # the world turns by 90 degrees about y in the second frame: x goes to -z
    np.testing.assert_allclose(found.root[1], [8, 91, -5], atol=1e-9)
    hips = Rotation.from_euler("ZXY", [10, 20, 30], degrees=True).as_matrix()
    np.testing.assert_allclose(found.turned[0, 0], hips)
    other = Rotation.from_euler("YXZ", [30, 20, 10], degrees=True).as_matrix()
    np.testing.assert_allclose(found.turned[0, 2], other)


def test_written_and_read_again() -> None:
    one = clip()
    other = read_bvh(bvh_text(one).encode(), "b.bvh")
    assert other.joints == one.joints
    assert other.ends == one.ends
    np.testing.assert_allclose(other.root, one.root, atol=1e-5)
    gap = Rotation.from_matrix((other.turned @ one.turned.swapaxes(-1, -2)).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(gap).max() < 0.01


ARM = """HIERARCHY
ROOT Shoulder
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Elbow
  {
    OFFSET 0 0 0
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    JOINT Hand
    {
      OFFSET 0 -25 0
      CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 -10 0
      }
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
5 140 0 0 0 0 0 -30 0 10 0 0 0 -25 0 0 0 0
6 141 0 0 0 0 0 -30 0 20 0 0 0 -25 0 0 5 0
"""


def test_joints_with_places_of_their_own_stay_joints() -> None:
    found = read_bvh(ARM.encode(), "arm.bvh")
    assert [joint.name for joint in found.joints] == ["Shoulder", "Elbow", "Hand"]
    assert found.joints[1].offset == (0.0, -30.0, 0.0)  # what its channels say, not its OFFSET
    np.testing.assert_allclose(found.root, [[5, 140, 0], [6, 141, 0]])
    with pytest.warns(UserWarning, match="Hand changes its length"):
        read_bvh(ARM.replace("0 -25 0 0 5 0", "0 -35 0 0 5 0").encode(), "arm.bvh")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("HIERARCHY", "HIERARCHIE"), "not a BVH file"),
        (("OFFSET 4 -10 0", "OFFSET 4 -10"), "line 13: a number is expected, not 'CHANNELS'"),
        (("CHANNELS 6", "CHANNELS 60"), "at most six channels"),
        (("Frames: 3", "Frames: many"), "line 31|line 30"),
        (("0 0 90 5 91 8", "0 0 90 5 nan 8"), "line 34: 15 finite numbers"),
        (("0 0 90 5 91 8", "0 0 90 5 91"), "line 34: 15 finite numbers"),
        (("0 0 90 5 91 8", "0 0 90 x 91 8"), "line 34: not a row of numbers"),
        (("Frame Time: 0.0333333", "Frame Time: 0"), "not something that is read"),
        (("JOINT Leg_R", "JOIN Leg_R"), "JOINT or End or } is expected, not 'JOIN'"),
        (("Xposition Yposition Zposition", "Xposition Xposition Zposition"), "named twice"),
    ],
)
def test_damage_is_named(change: tuple[str, str], what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_bvh(BVH.replace(*change).encode(), "a.bvh")
    with pytest.raises(DataError):
        read_bvh(BVH.encode()[: len(BVH) // 3], "cut.bvh")


def test_six_numbers_are_a_rotation() -> None:
    turns = torch.from_numpy(Rotation.random(50, random_state=0).as_matrix())
    torch.testing.assert_close(matrices(six_of(turns)), turns)
    loose = matrices(3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    torch.testing.assert_close(loose @ loose.mT, torch.eye(3).double().expand(40, 3, 3))
    torch.testing.assert_close(torch.linalg.det(loose), torch.ones(40).double())
    assert matrices(torch.zeros(2, 6)).isfinite().all()


def test_kinematics_against_a_walk_down_the_tree() -> None:
    data = walkers("test")
    x = data.x[3, 5].astype(np.float64)
    found = places_of(torch.from_numpy(x)[None, None], data.spec)[0, 0]
    local = matrices(torch.from_numpy(x[3:]).view(-1, 6)).numpy()

    def world(j: int) -> tuple[np.ndarray, np.ndarray]:
        joint = data.spec.joints[j]
        if joint.parent < 0:
            return x[:3], local[0]
        place, turn = world(joint.parent)
        return place + turn @ np.array(joint.offset), turn @ local[j]

    for j in range(len(data.spec.joints)):
        np.testing.assert_allclose(found[j], world(j)[0], atol=1e-9)
    for i, end in enumerate(data.spec.ends):
        place, turn = world(end[0])
        np.testing.assert_allclose(found[len(data.spec.joints) + i], place + turn @ np.array(end[1:]), atol=1e-9)
    assert len(bones(data.spec)) == len(data.spec.joints) - 1 + len(data.spec.ends)


def test_alignment_turns_the_whole_and_changes_nothing_else() -> None:
    data = walkers("test")
    x = data.x[0].astype(np.float64)
    turn = Rotation.from_euler("y", 2.0).as_matrix()
    moved = x.copy()
    moved[:, :3] = x[:, :3] @ turn.T + [100, 0, -50]
    moved[:, 3:6], moved[:, 6:9] = x[:, 3:6] @ turn.T, x[:, 6:9] @ turn.T
    assert heading(moved[0], data.spec) == pytest.approx(2.0, abs=1e-6)
    np.testing.assert_allclose(aligned(moved, data.spec), x, atol=1e-4)
    skeleton = Skeleton(data.spec).double()
    before, after = (skeleton(torch.from_numpy(v)) for v in (moved, aligned(moved, data.spec)))
    torch.testing.assert_close(torch.cdist(before, before), torch.cdist(after, after))


def test_left_and_right() -> None:
    assert mirrored(["Hips", "Hand_L", "Hand_R"]) == [(1, 2)]
    assert mirrored(["LeftFoot", "Spine", "RightFoot"]) == [(0, 2)]
    assert mirrored(["l_knee", "r_knee"]) == [(0, 1)]
    assert mirrored(["Spine", "Head"]) == []


def test_other_rates() -> None:
    one = clip()
    half = resampled(one, 15)
    np.testing.assert_allclose(half.root, one.root[[0, 2]], atol=1e-3)
    twice = resampled(one, 60)
    assert len(twice.root) == 5
    np.testing.assert_allclose(twice.root[1], one.root[:2].mean(0), atol=1e-3)
    assert resampled(one, one.fps) is one


def test_folders_zips_windows_and_classes(tmp_path: Path) -> None:
    data = walkers("test", MotionOptions(length=24, fps=12))
    for i in range(20):
        kind = data.spec.classes[int(data.labels[i])]
        path = tmp_path / "all" / kind / f"{i}.bvh"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bvh_text(clip_of(data.x[i], data.spec)))
    options = MotionOptions(length=10, fps=12, hop=7)
    found = open_motion(tmp_path / "all", options)
    assert len(found) == 20 * 3
    assert found.spec.classes == tuple(sorted({found.spec.classes[i] for i in found.labels.tolist()}))
    train, test = (open_motion(tmp_path / "all", options, split=s) for s in ("train", "test"))
    clips = [{f.split("#")[0] for f in part.files} for part in (train, test)]
    assert clips[0].isdisjoint(clips[1])
    assert len(clips[0]) + len(clips[1]) == 20
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.write(
            tmp_path / "all" / "hop" / path.name if (tmp_path / "all" / "hop" / path.name).exists() else path, "x.bvh"
        )
    held = open_motion(tmp_path / "a.zip", MotionOptions(length=60, fps=12))
    assert any("last one is held" in note for note in held.notes)
    assert (held.x[0, 30] == held.x[0, 59]).all()
    (tmp_path / "all" / "b.bvh").write_text(BVH)
    with pytest.raises(DataError, match="skeleton is not that of the others"):
        open_motion(tmp_path / "all", replace_labels(options))
    kept = open_motion(tmp_path / "all", MotionOptions(length=10, fps=12, labels="none", on_bad_file="skip"))
    assert any("Skipped" in note for note in kept.notes)
    with pytest.raises(UsageError, match="labels is"):
        MotionOptions(labels="kind")


def replace_labels(options: MotionOptions) -> MotionOptions:
    return MotionOptions(options.length, options.fps, options.hop, labels="none")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    data = walkers("test", MotionOptions(length=16, fps=12))
    batch = data.batch(np.arange(2))
    paths = MEDIUM.write(batch, data.spec, tmp_path, recipe={"seed": 1})
    assert [p.name for p in paths] == ["0000.bvh", "0001.bvh"]
    for i, path in enumerate(paths):
        x = MEDIUM.read_file(path, data.spec)
        np.testing.assert_allclose(places_of(x[None], data.spec), places_of(batch.x[i : i + 1], data.spec), atol=0.01)
        assert json.loads(path.with_suffix(".json").read_text())["index"] == i
    with Image.open(paths[0].with_suffix(".gif")) as moving:
        assert moving.n_frames == 16
    with pytest.raises(UsageError, match=r"@FILE\.bvh"):
        MEDIUM.read("walk", data.spec)
    (tmp_path / "other.bvh").write_text(BVH)
    with pytest.raises(DataError, match="skeleton is not that of the run"):
        MEDIUM.read_file(tmp_path / "other.bvh", data.spec)


def test_glb_moves(tmp_path: Path) -> None:
    data = walkers("test", MotionOptions(length=16, fps=12))
    one = clip_of(data.x[0], data.spec)
    raw = glb_bytes(one)
    magic, version, size = struct.unpack("<III", raw[:12])
    assert (magic, version, size) == (0x46546C67, 2, len(raw))
    length = struct.unpack("<I", raw[12:16])[0]
    scene = json.loads(raw[20 : 20 + length])
    data_at = 20 + length + 8
    view = lambda i: scene["bufferViews"][scene["accessors"][i]["bufferView"]]  # noqa: E731
    (track,) = scene["animations"]
    assert len(track["channels"]) == 1 + len(one.joints)
    for channel in track["channels"][1:]:
        sampler = track["samplers"][channel["sampler"]]
        place = view(sampler["output"])
        start = data_at + place["byteOffset"]
        turns = np.frombuffer(raw[start : start + place["byteLength"]], np.float32).reshape(-1, 4)
        found = Rotation.from_quat(turns).as_matrix()
        np.testing.assert_allclose(found, one.turned[:, channel["target"]["node"]], atol=1e-5)
        assert (np.sum(turns[1:] * turns[:-1], 1) > 0).all()
    import trimesh

    loaded = trimesh.load(io.BytesIO(raw), file_type="glb")
    assert len(loaded.graph.nodes_geometry) == 13
    tall = loaded.bounds[1, 1] - loaded.bounds[0, 1]
    assert 1.0 < tall < 2.5  # metres


def test_sliding_feet_and_jerks_are_seen() -> None:
    joints = (Joint("Hips", -1, (0, 0, 0)), Joint("Leg_L", 0, (10, 0, 0)), Joint("Leg_R", 0, (-10, 0, 0)))
    spec = MotionSpec(30, 30, joints, ((1, 0.0, -100.0, 0.0), (2, 0.0, -100.0, 0.0)))
    still = torch.zeros(1, 30, spec.numbers)
    still[..., 1] = 100
    still[..., 3::6] = 1
    still[..., 7::6] = 1
    assert sliding(still, spec)[0] == pytest.approx(0)
    assert jerk(still, spec)[0] == pytest.approx(0, abs=1e-6)
    gliding = still.clone()
    gliding[0, :, 2] = torch.arange(30) * 100 / 30  # a body's height each second
    assert sliding(gliding, spec)[0] == pytest.approx(1, abs=1e-4)
    shaken = still + 0.5 * torch.randn(still.shape, generator=torch.Generator().manual_seed(0)) * (
        torch.arange(spec.numbers) < 3
    )
    assert jerk(shaken, spec)[0] > 100


def test_features_tell_kinds_apart() -> None:
    data = walkers("train")
    found = features(torch.from_numpy(data.x), data.spec)
    labels = data.labels.numpy()
    assert frechet(found[:, :5], found[:, :5]) == pytest.approx(0, abs=1e-3)
    from castalia.media.base import Work
    from castalia.media.motion.measures import MEASURES

    test = walkers("test")
    measure = next(m for m in MEASURES if m.name == "motion")
    told = measure.run(Work(data.spec, test.batch(np.arange(48)), data, test))
    assert told["motion_recognised"].value > 0.95
    assert told["motion_nearest"].value == pytest.approx(told["motion_nearest_floor"].value, rel=0.3)
    assert len(set(labels.tolist())) == 3


def test_a_drawing_and_a_film() -> None:
    data = walkers("test", MotionOptions(length=16, fps=12))
    page = MEDIUM.picture(data.batch(np.arange(3)), data.spec)
    assert page.size == (2 * 560, 2 * 170)
    with Image.open(io.BytesIO(film(torch.from_numpy(data.x[0]), data.spec))) as moving:
        first = np.asarray(moving.convert("RGB"))
        moving.seek(8)
        assert (np.asarray(moving.convert("RGB")) != first).any()


def test_frames_and_clips() -> None:
    data = walkers("test", MotionOptions(length=8, fps=8))
    back = frames_of(clip_of(data.x[0], data.spec))
    np.testing.assert_allclose(back, data.x[0], atol=1e-5)


def test_real_people(castalia_data: Path) -> None:
    data = open_data("motion", MotionOptions(length=40, fps=20, hop=40), split="test")
    assert len(data.spec.joints) == 21
    assert "walk" in data.spec.classes
    places = places_of(torch.from_numpy(data.x), data.spec)
    assert 120 < np.ptp(places[..., 1], axis=(1, 2)).mean() < 220  # centimetres
    assert all(abs(heading(x[0], data.spec)) < 1e-4 for x in data.x[:20])


def test_degenerate_numbers_are_some_rotation() -> None:
    six = torch.zeros(4, 6)
    six[1, 0], six[1, 3] = 1, 2  # along one another
    six[2, 4] = 3
    six[3] = torch.tensor([0.3, -0.5, 0.7, -0.6, 1.0, -1.4])
    found = matrices(six)
    torch.testing.assert_close(found.mT @ found, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(4))


@pytest.mark.parametrize("count", [1, 2])
def test_motions_are_judged_by_few(count: int) -> None:
    data = walkers("train")
    few = Motions(data.x[:count], data.spec, name="few", files=[""] * count)
    judge = _Judge(few, data.spec)
    found = judge.whitened(data.batch(np.arange(40)).x)
    assert np.isfinite(found).all()
    assert found.shape[1] == 1
    assert frechet(found, found[:20]) >= -1e-3  # the root's own jitter


def test_a_joint_may_be_called_motion() -> None:
    clip = read_bvh(bvh_text(clip_of(walkers("train").x[0], walkers("train").spec)).encode(), "a")
    root = Joint("MOTION_root", -1, clip.joints[0].offset)
    text = bvh_text(Clip((root, *clip.joints[1:]), clip.ends, clip.fps, clip.root, clip.turned))
    for ends in ("\n", "\r\n"):
        back = read_bvh(text.replace("\n", ends).encode(), "b")
        assert back.joints[0].name == "MOTION_root"
        np.testing.assert_allclose(back.root, clip.root, atol=1e-5)
