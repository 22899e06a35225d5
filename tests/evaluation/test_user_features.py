"""A feature network that the user brings as an ONNX graph."""

import pytest
import torch

from castalia.core.errors import DataError, UsageError
from castalia.evaluation.user_features import UserFeatures

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def graph(path, *, channels=3, side=None, batch="n", kind=None, output=None):
    """The mean over rows and columns of each channel, as an ONNX file."""
    from onnx import TensorProto, helper

    kind = kind or TensorProto.FLOAT
    side = side or ("h", "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["y"], ["z"], axes=[2, 3], keepdims=0 if output is None else 1),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "means",
            [helper.make_tensor_value_info("x", kind, [batch, channels, *side])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, output or [batch, channels])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    path.write_bytes(made.SerializeToString())
    return path


def pictures(n, channels=3, side=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, side, side), generator=g, dtype=torch.uint8)


def test_a_network_of_the_users_own(tmp_path):
    space = UserFeatures(graph(tmp_path / "means.onnx"))
    x = pictures(130)
    assert torch.allclose(space.see(x).features, x.float().mean((2, 3)), atol=1e-3)
    assert space.name.startswith("means.onnx ")
    assert space.resize == "none"
    assert not space.inception
    # grey becomes RGB, RGBA is laid on black
    grey, rgba = pictures(2, 1), pictures(2, 4)
    assert torch.allclose(space.see(grey).features, grey.float().mean((2, 3)).expand(-1, 3), atol=1e-3)
    on_black = (rgba[:, :3].float() * rgba[:, 3:] / 255).mean((2, 3))
    assert torch.allclose(space.see(rgba).features, on_black, atol=1e-3)


def test_fixed_sizes_batches_and_whole_numbers(tmp_path):
    from onnx import TensorProto

    path = graph(tmp_path / "f.onnx", channels=1, side=(3, 3), batch=4, kind=TensorProto.UINT8, output=[4, 1, 1, 1])
    space = UserFeatures(path, inception=True)
    assert space.inception
    assert space.name.startswith("Inception (the user's word), f.onnx ")
    assert space.resize == "3x3 (bilinear, antialiased)"
    features = space.see(torch.full((6, 1, 9, 9), 100, dtype=torch.uint8)).features
    assert torch.allclose(features, torch.full((6, 1), 100.0))
    with pytest.raises(UsageError, match="1 channels"):
        space.see(pictures(2))


def test_what_is_no_feature_network_is_refused(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(DataError, match=r"broken.onnx is not an ONNX graph"):
        UserFeatures(broken)
    with pytest.raises(DataError, match="cannot be read"):
        UserFeatures(tmp_path / "nothing.onnx")
    from onnx import TensorProto

    with pytest.raises(DataError, match="must take one tensor"):
        UserFeatures(graph(tmp_path / "i.onnx", kind=TensorProto.INT64))
