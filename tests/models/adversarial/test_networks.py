"""Networks: reference sizes exactly, any picture size, classes, packs, spectral normalisation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.core.rng import BatchRng
from castalia.core.specs.image import ImageSpec
from castalia.core.specs.points import PointsSpec
from castalia.models.adversarial.gan import GANConfig
from castalia.models.adversarial.layers import (
    ConditionalNorm,
    LabelBeside,
    LabelMaps,
    Maxout,
    Projection,
    halvings,
    normalise_spectrally,
    pack,
    set_weights,
    still,
)
from castalia.models.adversarial.losses import critic_loss
from castalia.models.adversarial.networks import PlayersConfig, make_critic, make_generator
from castalia.models.adversarial.residual import DownBlock, UpBlock
from castalia.models.adversarial.wgan import WGANConfig
from castalia.recipes import gan, wgan


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def both(config: PlayersConfig, spec: ImageSpec | PointsSpec) -> tuple[int, int]:
    return count(make_generator(config, spec)), count(make_critic(config, spec))


def gulrajani(width: int) -> WGANConfig:
    """The 32-pixel residual networks; a generator of ``width`` channels."""
    return WGANConfig(
        network="resnet",
        latent_dims=128,
        widths=(width,) * 4,
        critic_widths=(128, 128),
        flat=2,
        critic_activation="relu",
    )


def test_parameter_counts_of_reference_networks() -> None:
    """The book's, as instantiated from its code; Gulrajani's and Mimicry's, by arithmetic from their layer tables."""
    faces = ImageSpec(3, 64, 64, ("dark", "blond"))
    assert both(gan.book_dcgan().config, ImageSpec(1, 64, 64)) == (3_574_656, 2_763_520)  # type: ignore[arg-type]
    assert both(wgan.book_wgan_gp().config, faces) == (3_806_083, 2_764_737)  # type: ignore[arg-type]
    # transposed 4x4: (32 + 2) x 128, 128 x 128 twice, 128 x 64, and 64 x 3 with a bias; four batch normalisations
    generator = 16 * (34 * 128 + 2 * 128 * 128 + 128 * 64 + 64 * 3) + 3 + 2 * (3 * 128 + 64)
    # 4x4 with biases: (3 + 2) x 64, 64 x 128, 128 x 128 twice, 128 x 1
    critic = 16 * (5 * 64 + 64 * 128 + 2 * 128 * 128 + 128) + 64 + 3 * 128 + 1
    assert both(wgan.book_cgan().config, faces) == (generator, critic)  # type: ignore[arg-type]

    def block(n: int, m: int, hidden: int, shortcut: bool = True) -> int:
        return 9 * n * hidden + hidden + 9 * hidden * m + m + (n * m + m if shortcut else 0)

    critic_32 = block(3, 128, 128) + block(128, 128, 128) + 2 * block(128, 128, 128, shortcut=False) + 129
    for width, total in ((128, 1_204_483), (256, 4_276_739)):  # Gulrajani's CIFAR-10, Mimicry's 32 pixels
        norms = 3 * 4 * width + 2 * width
        expected = 129 * 16 * width + 3 * block(width, width, width) + norms + 27 * width + 3
        assert expected == total
        assert both(gulrajani(width), ImageSpec(3, 32, 32)) == (total, critic_32)
    assert critic_32 == 1_053_825
    widths = (64, 128, 256, 512, 1024)  # Mimicry's 64 pixels
    ups = sum(block(n, m, m) + 2 * n + 2 * m for n, m in zip(widths[1:], widths[:-1], strict=True))
    downs = block(3, 64, 64) + sum(block(n, m, n) for n, m in itertools.pairwise(widths))
    config = WGANConfig(network="resnet", latent_dims=128, widths=widths, critic_activation="relu")
    assert both(config, ImageSpec(3, 64, 64)) == (129 * 16 * 1024 + ups + 2 * 64 + 27 * 64 + 3, downs + 1025)


def test_parameter_counts_of_perceptrons() -> None:
    points = PointsSpec(2)
    # PacGAN: no biases under the batch normalisations; five pieces
    generator = 2 * 400 + 3 * 400 * 400 + 4 * 800 + 400 * 2 + 2
    critic = sum(n * 1000 + 1000 for n in (4, 200, 200)) + 201
    assert both(gan.pacgan_grid().config, points) == (generator, critic)  # type: ignore[arg-type]
    # Gulrajani's toys: three hidden layers of 512
    toy = WGANConfig(network="mlp", latent_dims=2, widths=(512,) * 3, norm="none", critic_activation="relu")
    hidden = 3 * 512 + 2 * (512 * 512 + 512)
    assert both(toy, points) == (hidden + 512 * 2 + 2, hidden + 513)


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 5), (33, 32)])
def test_any_size(network: Any, size: tuple[int, int]) -> None:
    spec = ImageSpec(4, *size, ("a", "b", "c"))
    for more in (
        {},
        {"condition": "concatenate", "label_dims": 3, "kernel": 5},
        {"condition": "projection", "pack": 1},
    ):
        config = GANConfig(network=network, latent_dims=5, widths=(4, 6, 8), **more)  # type: ignore[arg-type]
        label = torch.tensor([0, 2])
        made = make_generator(config, spec)(torch.randn(2, 5), label)
        assert made.shape == (2, *spec.shape)
        assert made.abs().max() <= 1
        assert make_critic(config, spec)(made, label).shape == (2, 1)
    assert halvings(7, 5, 3) == [(7, 5), (4, 3), (2, 2), (1, 1)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="network=mlp"):
        make_generator(GANConfig(network="conv"), PointsSpec(2))
    with pytest.raises(UsageError, match="needs labels"):
        make_critic(GANConfig(condition="projection"), ImageSpec(1, 8, 8))
    for wrong in (
        {"condition": "projection", "pack": 2},
        {"conditional_norm": True},
        {"critic_activation": "maxout"},
        {"widths": ()},
        {"kernel": 3},
        {"dropout": 1.0},
        {"flat": 1},
        {"game": "hinge", "smooth": 0.1},
    ):
        with pytest.raises(ValueError):
            GANConfig(**wrong)  # type: ignore[arg-type]
    for wrong in ({"critic_norm": "batch"}, {"lipschitz": "clip", "spectral": True}, {"penalty": 0.0}):
        with pytest.raises(ValueError):
            WGANConfig(**wrong)  # type: ignore[arg-type]


def test_residual_blocks_with_zero_convolutions_only_resample() -> None:
    """Up is nearest, down is the mean, also at odd sizes; the shortcut commutes with both."""
    x = torch.randn(2, 3, 3, 4)
    up = UpBlock(3, 3, (5, 8), lambda n: nn.Identity(), nn.ReLU)
    down = DownBlock(3, 3, lambda n: nn.Identity(), nn.ReLU)
    for block in (up, down):
        for p in block.parameters():
            nn.init.zeros_(p)
        shortcut = block.shortcut
        assert isinstance(shortcut, nn.Conv2d)
        nn.init.dirac_(shortcut.weight)
    assert torch.equal(up(x, None), x.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :5])
    halved = down(x)
    torch.testing.assert_close(halved[:, :, 0, 1], x[:, :, :2, 2:].mean((2, 3)))
    torch.testing.assert_close(halved[:, :, 1, 0], x[:, :, 2, :2].mean(2))


def test_conditional_normalisation() -> None:
    """(x - mean) / deviation of the whole batch, times the gain and plus the bias of the row's class."""
    layer = ConditionalNorm(nn.BatchNorm2d(3, affine=False), 2)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    x, label = torch.randn(6, 3, 4, 5) * 3 + 1, torch.tensor([0, 1, 1, 0, 1, 0])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    normal = (x - mean.view(3, 1, 1)) / (variance.view(3, 1, 1) + 1e-5).sqrt()
    for row, k in enumerate(label.tolist()):
        expected = normal[row] * layer.gain.weight[k].view(3, 1, 1) + layer.bias.weight[k].view(3, 1, 1)
        torch.testing.assert_close(layer(x, label)[row], expected, atol=1e-5, rtol=1e-5)


def test_projection_is_its_formula() -> None:
    layer = Projection(4, 3)
    nn.init.normal_(layer.embedding.weight)
    x, label = torch.randn(5, 4), torch.tensor([0, 2, 1, 2, 0])
    expected = [
        x[i] @ layer.linear.weight[0] + layer.linear.bias + layer.embedding.weight[k] @ x[i]
        for i, k in enumerate(label)
    ]
    torch.testing.assert_close(layer(x, label), torch.stack(expected))


def test_labels_as_maps_and_beside_latents() -> None:
    x, label = torch.randn(2, 3, 4, 5), torch.tensor([1, 0])
    maps = LabelMaps(2)(x, label)
    assert torch.equal(maps[:, :3], x)
    assert torch.equal(maps[0, 3:], torch.stack([torch.zeros(4, 5), torch.ones(4, 5)]))
    assert torch.equal(LabelMaps(2)(x[:, :, 0, 0], label)[1, 3:], torch.tensor([1.0, 0.0]))
    beside = LabelBeside(2, 0)(x[:, :, 0, 0], label)
    assert torch.equal(beside[:, 3:], torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert LabelBeside(2, 7)(x[:, :, 0, 0], label).shape == (2, 10)


def test_maxout() -> None:
    x = torch.tensor([[1.0, 5.0, 2.0, -1.0, -3.0, -2.0]])
    assert torch.equal(Maxout(3)(x), torch.tensor([[5.0, -1.0]]))


def test_packing_is_concatenation() -> None:
    x = torch.randn(6, 3, 4, 5)
    packed = pack(x, 3)
    assert torch.equal(packed[1], torch.cat([x[3], x[4], x[5]]))
    assert torch.equal(pack(x.contiguous(memory_format=torch.channels_last), 3), packed)
    points = torch.randn(6, 2)
    assert torch.equal(pack(points, 2)[2], torch.cat([points[4], points[5]]))
    assert pack(points, 1) is points


def test_a_packed_critic_tells_equal_from_unequal_pairs() -> None:
    """What one sample cannot show: every single point is distributed alike in both kinds of pairs."""
    torch.manual_seed(0)
    config = GANConfig(network="mlp", widths=(32, 32), pack=2, weights="torch")
    critic = make_critic(config, PointsSpec(1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for step in range(150):
        rng = BatchRng(step, total=128)
        different, same = rng.normal("x", 1), rng.normal("x", 1)
        same[1::2] = same[::2]
        loss = critic_loss("non-saturating", critic(pack(different, 2)), critic(pack(same, 2)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rng = BatchRng(10**6, total=2000)
    different, same = rng.normal("x", 1), rng.normal("y", 1)
    same[1::2] = same[::2]
    right = (critic(pack(different, 2)) > 0).float().mean() + (critic(pack(same, 2)) < 0).float().mean()
    assert right / 2 > 0.9


def test_spectral_norm_is_one() -> None:
    """Largest singular value 1 within 1e-3 after 300 power iterations; convolutions as matrices (out, rest)."""
    torch.manual_seed(0)
    critic = make_critic(
        GANConfig(widths=(8, 12), condition="projection", spectral=True), ImageSpec(3, 8, 8, ("a", "b"))
    )
    x, label = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
    critic.train()
    for _ in range(300):
        critic(x, label)
    critic.eval()
    matrices = [m.weight.flatten(1) for m in critic.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))]
    assert len(matrices) == 4
    for matrix in matrices:
        assert float(torch.linalg.matrix_norm(matrix.detach(), 2)) == pytest.approx(1.0, abs=1e-3)


def test_standing_still_leaves_buffers_alone_and_computes_the_same() -> None:
    torch.manual_seed(0)
    config = GANConfig(widths=(4, 6), critic_norm="batch", spectral=True)
    critic = make_critic(config, ImageSpec(1, 8, 8)).train()
    x = torch.randn(6, 1, 8, 8)
    before = {k: v.clone() for k, v in critic.state_dict().items()}
    with still(critic):
        quiet = critic(x)
    after = critic.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    for _ in range(30):  # until power iteration stands
        loud = critic(x)
    with still(critic):
        quiet = critic(x)
    torch.testing.assert_close(quiet, loud, atol=1e-4, rtol=1e-4)
    moved = [k for k, v in critic.state_dict().items() if "running" in k and not torch.equal(v, before[k])]
    assert len(moved) == 2, "without standing still it gathers statistics"


@pytest.mark.parametrize("how", ["normal", "he", "torch"])
def test_initial_weights(how: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 400))
    set_weights(network, how)
    first, last = network[0], network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    expected = {
        "normal": (0.02, 0.02),
        "he": (math.sqrt(2 / 400), math.sqrt(1 / 500)),
        "torch": (3**-0.5 / 20, 500**-0.5 / 3**0.5),
    }
    for layer, std in zip((first, last), expected[how], strict=True):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
        assert (layer.bias.abs().max() == 0) == (how != "torch")


def test_spectral_normalisation_covers_every_matrix() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Linear(2, 2)), nn.ConvTranspose2d(2, 1, 4))
    normalise_spectrally(network)

    def weights(m: nn.Module) -> list[str]:
        return [k for k, _ in m.named_parameters() if k.endswith("parametrizations.weight.original")]

    assert len(weights(network)) == 3


def test_a_still_network_may_be_in_evaluation() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3)).eval()
    x: Tensor = torch.randn(4, 3)
    expected = network(x)
    with still(network):
        assert torch.equal(network(x), expected)
    assert not network.training
