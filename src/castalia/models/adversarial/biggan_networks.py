"""The residual networks of BigGAN and BigGAN-deep, for pictures of any size that can be halved.

Every matrix of both is divided by its largest singular value, but for the embedding that the generator's layers share.

Papers
    Brock et al. 2019 (arXiv:1809.11096): section 3 (shared embedding, hierarchical latents), appendix B (tables 4 to 9,
    figures 15 and 16). Zhang et al. 2019 (arXiv:1805.08318): attention. Miyato et al. 2018 (arXiv:1802.05957).
    Miyato & Koyama 2018 (arXiv:1802.05637), eq. 3: the projection of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from castalia.models.adversarial.layers import WEIGHTED, Labelled, one_hot


@dataclass(frozen=True)
class Shape:
    """What both networks are made from.

    Attributes:
        deep: BigGAN-deep: four convolutions to a block, two blocks to a size.
        latents: length of the latent vector.
        parts: lengths of the parts of the latent vector that the blocks see, the first layer's first; empty: it sees
            all, and the blocks none. With ``deep`` every block sees all.
        classes: number of classes, 0 for none.
        shared: length of the class's embedding; 0: each layer has a table of its own.
        widths: channels of the generator, from the smallest maps on.
        critic_widths: channels of the critic, from the picture on: after each block, and with ``deep`` first of all
            those of a convolution before the blocks.
        halvings: how many blocks of the critic halve their maps.
        sizes: height and width, the smallest first.
        attention: index in ``sizes`` of the maps with attention; -1: none.
        channels: of the pictures.
    """

    deep: bool
    latents: int
    parts: tuple[int, ...]
    classes: int
    shared: int
    widths: tuple[int, ...]
    critic_widths: tuple[int, ...]
    halvings: int
    sizes: tuple[tuple[int, int], ...]
    attention: int
    channels: int

    @property
    def code(self) -> int:
        """Length of the class's code."""
        return self.shared or self.classes


class Attention(nn.Module):
    """Adds to each place what it finds elsewhere, times gamma, which begins at 0: (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, half = max(1, channels // 8), max(1, channels // 2)
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, half, 1, bias=False)
        self.o = nn.Conv2d(half, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)
        key = F.max_pool2d(self.phi(x), 2, ceil_mode=True).flatten(2)
        value = F.max_pool2d(self.g(x), 2, ceil_mode=True).flatten(2)
        weights = torch.softmax(query.transpose(1, 2).float() @ key.float(), -1).to(value.dtype)  # (B, HW, HW / 4)
        found = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(found)


class CodedNorm(Labelled):
    """Batch normalisation whose gain, 1 plus a linear map, and bias come from a code (B, code)."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not code)
        self.gain = nn.Linear(code, channels, bias=False) if code else None
        self.bias = nn.Linear(code, channels, bias=False) if code else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y = self.norm(x)
        if self.gain is None or self.bias is None:
            return y
        return y * (1 + self.gain(label))[:, :, None, None] + self.bias(label)[:, :, None, None]


def enlarge(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UpBlock(nn.Module):
    """BigGAN's block of the generator: two convolutions beside one of 1x1, all after doubling the sides."""

    def __init__(self, inputs: int, outputs: int, code: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = CodedNorm(inputs, code), CodedNorm(outputs, code)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = self.conv1(enlarge(F.relu(self.norm1(x, code))))
        y = self.conv2(F.relu(self.norm2(y, code)))
        return y + enlarge(self.shortcut(x))  # a 1x1 convolution of doubled maps, computed on the small ones


class DeepUpBlock(nn.Module):
    """BigGAN-deep's: a bottleneck of a quarter of the channels; the shortcut drops channels, and has no weights."""

    def __init__(self, inputs: int, outputs: int, code: int, up: bool) -> None:
        super().__init__()
        hidden = max(1, inputs // 4)
        self.outputs, self.up = outputs, up
        self.norms = nn.ModuleList(CodedNorm(c, code) for c in (inputs, hidden, hidden, hidden))
        self.conv1 = nn.Conv2d(inputs, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(hidden, outputs, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = F.relu(self.norms[1](self.conv1(F.relu(self.norms[0](x, code))), code))
        x = x[:, : self.outputs]
        if self.up:
            x, y = enlarge(x), enlarge(y)
        y = F.relu(self.norms[2](self.conv2(y), code))
        y = F.relu(self.norms[3](self.conv3(y), code))
        return x + self.conv4(y)


class DownBlock(nn.Module):
    """BigGAN's block of the critic; ``first``: it sees the picture, which no rectifier may cut."""

    def __init__(self, inputs: int, outputs: int, down: bool, first: bool) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        x, y = (F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)) if self.down else (x, y)
        return y + (x if self.shortcut is None else self.shortcut(x))  # 1x1 and means commute


class DeepDownBlock(nn.Module):
    """BigGAN-deep's: a bottleneck of a quarter of the outputs; the shortcut adds the channels that are missing."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        hidden = max(1, outputs // 4)
        self.down, self.outputs = down, outputs
        self.conv1 = nn.Conv2d(inputs, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(hidden, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs - inputs, 1) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(F.relu(x))))
        y = F.relu(self.conv3(F.relu(y)))
        x, y = (F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)) if self.down else (x, y)
        x = x[:, : self.outputs] if self.shortcut is None else torch.cat([x, self.shortcut(x)], 1)
        return x + self.conv4(y)


class BigGenerator(nn.Module):
    """Latents (B, z), and labels (B,) where there are classes, to pictures (B, C, H, W) in [-1, 1]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths, (height, width) = shape.widths, shape.sizes[0]
        self.embedding = nn.Embedding(shape.classes, shape.shared) if shape.classes and shape.shared else None
        if shape.deep:
            first = shape.latents + shape.code
            codes = [first] * (len(widths) - 1)
        else:
            first = shape.parts[0] if shape.parts else shape.latents
            codes = [shape.code + n for n in shape.parts[1:]] or [shape.code] * (len(widths) - 1)
        self.linear = nn.Linear(first, widths[0] * height * width)
        self.blocks = nn.ModuleList()
        for number, (inputs, outputs, code) in enumerate(zip(widths, widths[1:], codes, strict=False), 1):
            blocks: list[nn.Module] = (
                [DeepUpBlock(inputs, inputs, code, up=False), DeepUpBlock(inputs, outputs, code, up=True)]
                if shape.deep
                else [UpBlock(inputs, outputs, code)]
            )
            self.blocks.append(nn.ModuleList(blocks))
            if number == shape.attention:
                self.attention = Attention(outputs)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.out = nn.Conv2d(widths[-1], shape.channels, 3, padding=1)
        start(self)
        # a linear map of ones and zeros is a table of numbers for each class: an embedding, too
        tables = bool(shape.classes) and not (shape.shared or shape.parts or shape.deep)
        normalise(self, but=("gain", "bias", "embedding") if tables else ("embedding",))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        s = self.shape
        code = z[:, :0]
        if label is not None:
            code = one_hot(label, s.classes, z.dtype) if self.embedding is None else self.embedding(label)
        if s.deep:
            z = torch.cat([code, z], 1)
            parts: Sequence[Tensor] = [z] * len(s.widths)
        elif s.parts:
            first, *rest = z.split(s.parts, 1)
            parts = [first, *(torch.cat([code, part], 1) for part in rest)]
        else:
            parts = [z, *[code] * (len(s.widths) - 1)]
        x = self.linear(parts[0]).unflatten(1, (s.widths[0], *s.sizes[0]))
        for number, (blocks, part) in enumerate(zip(self.blocks, parts[1:], strict=True), 1):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, part)
            if number == s.attention:
                x = self.attention(x)
        return torch.tanh(self.out(F.relu(self.norm(x))))


class BigCritic(nn.Module):
    """Pictures (B, C, H, W), and labels (B,), to logits (B,): features are summed over all places."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inputs, widths = shape.channels, shape.critic_widths
        self.stem = None
        if shape.deep:
            self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
            inputs, widths = widths[0], widths[1:]
        self.blocks = nn.ModuleList()
        for number, outputs in enumerate(widths):
            down = number < shape.halvings
            blocks: list[nn.Module] = (
                [DeepDownBlock(inputs, outputs, down), DeepDownBlock(outputs, outputs, down=False)]
                if shape.deep
                else [DownBlock(inputs, outputs, down, first=not number)]
            )
            self.blocks.append(nn.ModuleList(blocks))
            if self.attends(number):
                self.attention = Attention(outputs)
            inputs = outputs
        self.linear = nn.Linear(inputs, 1)
        self.embedding = nn.Embedding(shape.classes, inputs) if shape.classes else None
        start(self)
        normalise(self)

    def attends(self, number: int) -> bool:
        """Whether there is attention after a size."""
        s = self.shape
        return number < s.halvings and len(s.sizes) - 2 - number == s.attention

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = x if self.stem is None else self.stem(x)
        for number, blocks in enumerate(self.blocks):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
            if self.attends(number):
                x = self.attention(x)
        features = F.relu(x).sum((2, 3))
        found = self.linear(features).squeeze(1)
        if label is not None and self.embedding is not None:
            found = found + (self.embedding(label) * features).sum(1)
        return found


@torch.no_grad()
def start(network: nn.Module) -> None:
    """Orthogonal initial weights; biases 0 (Brock et al. 2019, appendix C.1)."""
    for layer in network.modules():
        if isinstance(layer, (*WEIGHTED, nn.Embedding)):
            nn.init.orthogonal_(layer.weight)
            if not isinstance(layer, nn.Embedding) and layer.bias is not None:
                nn.init.zeros_(layer.bias)


def normalise(network: nn.Module, but: tuple[str, ...] = ()) -> None:
    """Divide weights by their largest singular values, by one power iteration per pass in training.

    Args:
        network: whose convolutions, linear maps and embeddings.
        but: names of layers that are left as they are.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, (*WEIGHTED, nn.Embedding)) and name.split(".")[-1] not in but:
            spectral_norm(layer)


def orthogonal_penalty(network: nn.Module, but: nn.Module | None = None) -> Tensor:
    """Sum over all matrices W (rows are outputs) of the squared products of different rows (Brock et al. 2019, eq. 3).

    Args:
        network: whose weights, before they are normalised.
        but: a part that is left out: the shared embedding.
    """
    out = {id(p) for p in but.parameters()} if but is not None else set()
    matrices = [p.flatten(1).float() for p in network.parameters() if p.ndim >= 2 and id(p) not in out]
    total = matrices[0].new_zeros(())
    with torch.autocast(total.device.type, enabled=False):  # in bfloat16 orthogonal rows would have products of 0.01
        for w in matrices:
            # W W^T has the norm of W^T W, which is smaller; so many rows cannot be orthogonal
            if len(w) > w.shape[1]:
                total = total + (w.T @ w).square().sum() - w.square().sum(1).square().sum()
                continue
            products = w @ w.T
            total = total + (products - torch.diag(products.diagonal())).square().sum()
    return total
