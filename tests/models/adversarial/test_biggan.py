"""BigGAN: sizes of networks, spectral norms, latents at every size, attention, regularisation, standing statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from castalia.core.data import Batch
from castalia.core.errors import UsageError
from castalia.core.model import Objective, Progress, build
from castalia.core.rng import BatchRng, SampleRng
from castalia.core.specs.image import ImageSpec
from castalia.models.adversarial.biggan import BigGAN, BigGANConfig, StandingOptions, shape_of
from castalia.models.adversarial.biggan_networks import (
    Attention,
    CodedNorm,
    DeepDownBlock,
    DeepUpBlock,
    DownBlock,
    UpBlock,
    orthogonal_penalty,
)

SPEC = ImageSpec(3, 16, 16, ("a", "b", "c"))
THOUSAND = tuple(map(str, range(1000)))


def biggan(spec: ImageSpec = SPEC, **config: Any) -> BigGAN:
    small = {"channels": 4, "latent_dims": 7, "shared_dims": 5, "conditional": bool(spec.classes)}
    made = build(BigGAN, BigGANConfig(**small | config), spec)
    assert isinstance(made, BigGAN)
    return made.train()


def batch(n: int = 8, spec: ImageSpec = SPEC) -> Batch:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, *spec.shape), dtype=torch.uint8, generator=g)
    return Batch(x, torch.arange(n), torch.randint(0, 3, (n,), generator=g))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def counts(side: int, classes: tuple[str, ...] = THOUSAND, **config: Any) -> tuple[int, int]:
    with torch.device("meta"):
        made = BigGAN(BigGANConfig(conditional=True, **config), ImageSpec(3, side, side, classes))
    return count(made.generator), count(made.critic)


# sizes


def test_parameters_of_biggan_128() -> None:
    assert counts(128) == (70_433_988, 87_982_370)


def test_parameters_of_biggan_deep_128() -> None:
    assert counts(128, deep=True, channels=128, latent_dims=128) == (50_244_484, 34_590_210)


def test_parameters_of_biggan_256() -> None:
    """Counts that others give for the generator are with attention at 128 pixels, for the critic with it at 64.

    One of the two codes known leaves the critic's shortcut out where a block that halves keeps its 768 channels; here,
    as in the other, it is a convolution: 768 * 768 + 768 parameters.
    """
    assert counts(256, latent_dims=140, attention=128)[0] == 82_097_604
    critic = counts(256, latent_dims=140)[1]
    assert critic == 99_225_890
    assert critic - (768 * 768 + 768) == 98_635_298


def test_parameters_of_biggan_512() -> None:
    """Likewise; two blocks of the critic halve and keep their channels, 96 and 768."""
    generator, critic = counts(512, latent_dims=160)
    assert generator == 82_468_068
    assert critic - (768 * 768 + 768) - (96 * 96 + 96) == 98_801_378


def test_parameters_for_cifar() -> None:
    ten = tuple("0123456789")
    plain = {"channels": 64, "latent_dims": 128, "shared_dims": 0, "hierarchical": False, "attention": 0}
    assert counts(32, ten, **plain) == (4_304_387, 4_207_361)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (4, 8, 12), (3, 28, 28), (2, 12, 10), (3, 16, 16), (3, 24, 24)]
)
def test_any_size(channels: int, height: int, width: int, labels: bool, deep: bool) -> None:
    spec = ImageSpec(channels, height, width, ("a", "b", "c") if labels else ())
    model, b = biggan(spec, deep=deep, channels=2), batch(4, spec)
    for objective in model.stages()[0].objectives:
        assert isinstance(objective, Objective)
        model.zero_grad()
        loss, _ = objective.loss(b, BatchRng(0, total=4), Progress(0, 1))
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.module.parameters())
    assert model.eval().sample(2, rng=SampleRng(0, range(2))).x.shape == (2, channels, height, width)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="widths"):
        counts(1024)
    with pytest.raises(UsageError, match="at least one block"):
        biggan(ImageSpec(1, 5, 7))
    with pytest.raises(UsageError, match="at least 3"):
        biggan(latent_dims=2)
    with pytest.raises(UsageError, match="halve"):
        biggan(critic_widths=(1, 2, 4, 8, 8))
    with pytest.raises(UsageError, match="3 times"):
        biggan(ImageSpec(1, 12, 12), widths=(4, 2, 1, 1))
    with pytest.raises(UsageError, match="labels"):
        biggan(ImageSpec(1, 8, 8), conditional=True)
    for wrong in ({"channels": 0}, {"orthogonal": -1.0}, {"critic_widths": (1, 2), "flat": 3}, {"widths": (0,)}):
        with pytest.raises(ValueError):
            BigGANConfig(**wrong)
    with pytest.raises(ValueError):
        StandingOptions(standing=-1)
    with pytest.raises(ValueError, match="whole latent vector"):
        BigGANConfig(deep=True, hierarchical=False)


@pytest.mark.parametrize(("deep", "most"), [(False, 3), (True, 2)])
def test_no_more_blocks_are_flat_than_there_are(deep: bool, most: int) -> None:
    """At 16 pixels a critic without widths of its own has 3 blocks, or with ``deep`` a convolution and 2."""
    spec = ImageSpec(1, 16, 16, ("a", "b"))
    assert biggan(spec, deep=deep, channels=2, critic_widths=(), flat=most).critic.shape.halvings == (1 if deep else 0)
    with pytest.raises(UsageError, match=f"at most {most}"):
        biggan(spec, deep=deep, channels=2, critic_widths=(), flat=most + 1)


# latents and classes


@pytest.mark.parametrize(("latents", "parts"), [(120, (20,) * 6), (122, (21, 21, 20, 20, 20, 20))])
def test_parts_of_the_latent_vector(latents: int, parts: tuple[int, ...]) -> None:
    """One for the first layer and one for each of five blocks, whose code is the class's 128 values and 20 latents."""
    g = biggan(ImageSpec(3, 128, 128, ("a", "b")), channels=1, latent_dims=latents, shared_dims=128).generator
    assert g.shape.parts == parts
    assert g.linear.in_features == parts[0]
    for blocks, part in zip(g.blocks, parts[1:], strict=True):
        for norm in blocks.modules():
            if isinstance(norm, CodedNorm):
                assert isinstance(norm.gain, nn.Linear)
                assert norm.gain.in_features == 128 + part
                assert norm.gain.bias is None


def test_each_part_changes_what_its_block_does_and_nothing_before() -> None:
    model = biggan().eval()
    starts = [0, 3, 5]  # parts of 3, 2 and 2
    seen: list[list[Tensor]] = [[], []]
    for number, blocks in enumerate(model.generator.blocks):
        blocks[0].register_forward_pre_hook(lambda m, args, number=number: seen[number].append(args[0]))
    z, label = torch.randn(2, 7), torch.tensor([0, 1])
    with torch.no_grad():
        for at in (None, *starts):
            changed = z.clone()
            if at is not None:
                changed[:, at] += 1
            model.generator(changed, label)
    same = [[torch.equal(inputs[0], later) for later in inputs[1:]] for inputs in seen]
    assert same == [[False, True, True], [False, False, True]]


@pytest.mark.parametrize("config", [{}, {"shared_dims": 0}, {"hierarchical": False}, {"deep": True, "channels": 8}])
def test_classes_and_latents_matter(config: dict[str, Any]) -> None:
    model = biggan(**config).eval()
    rng = SampleRng(0, range(3))
    one, other = (model.sample(3, {"label": torch.full((3,), k)}, rng=rng).x for k in (0, 2))
    assert not torch.equal(one, other)
    again = model.sample(3, {"label": torch.zeros(3, dtype=torch.int64)}, rng=SampleRng(1, range(3))).x
    assert not torch.equal(one, again)
    x = torch.randn(3, 3, 16, 16)
    zero, two = (model.critic(x, torch.full((3,), k)) for k in (0, 2))
    assert not torch.equal(zero, two)


def test_norms_of_a_code_of_zeros_are_plain_and_without_a_code_learned() -> None:
    x = torch.randn(8, 6, 4, 4) * 3 + 1
    coded, plain = CodedNorm(6, 5), CodedNorm(6, 0)
    torch.testing.assert_close(coded(x, torch.zeros(8, 5)), nn.BatchNorm2d(6)(x))
    torch.testing.assert_close(plain(x, torch.zeros(8, 0)), nn.BatchNorm2d(6)(x))
    assert count(plain) == 12
    code = torch.randn(8, 5)
    assert coded.gain is not None
    assert coded.bias is not None
    expected = nn.BatchNorm2d(6, affine=False)(x) * (1 + code @ coded.gain.weight.T)[:, :, None, None]
    torch.testing.assert_close(coded(x, code), expected + (code @ coded.bias.weight.T)[:, :, None, None])


def test_the_critic_sums_over_places_and_projects() -> None:
    model = biggan().eval()
    c, x, label = model.critic, torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        y = x
        for number, blocks in enumerate(c.blocks):
            y = blocks[0](y)
            y = c.attention(y) if c.attends(number) else y
        features = y.relu().sum((2, 3))
        assert c.embedding is not None
        expected = features @ c.linear.weight[0] + c.linear.bias + (features * c.embedding.weight[label]).sum(1)
        torch.testing.assert_close(c(x, label), expected)


# spectral norms


@pytest.mark.parametrize("deep", [False, True])
def test_spectral_norms(deep: bool) -> None:
    """After some passes every weight but the shared embedding's has largest singular value 1, as an exact one says."""
    model = biggan(deep=deep, channels=4)
    x, z, label = torch.randn(2, 3, 16, 16), torch.randn(2, 7), torch.tensor([0, 1])
    with torch.no_grad():
        for p in model.parameters():  # away from orthogonal weights, whose singular values are all 1 before
            if p.ndim > 1:
                p.add_(torch.randn_like(p))
        for _ in range(300):
            model.critic(x, label)
            model.generator(z, label)
        model.eval()
        layers = 0
        for name, layer in model.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
                value = float(torch.linalg.svdvals(layer.weight.flatten(1))[0])
                if name == "generator.embedding":
                    assert value > 1.5
                else:
                    assert value == pytest.approx(1, abs=0.02), name
                    layers += 1
        assert layers > 20


def test_power_iterations_move_on_in_their_own_update_only() -> None:
    model = biggan()
    for name, other in (("critic", "generator"), ("generator", "critic")):
        before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith(other)}
        mine = {k: v.clone() for k, v in model.named_buffers() if k.startswith(name)}
        objective = next(o for o in model.stages()[0].objectives if o.name == name)
        assert isinstance(objective, Objective)
        objective.loss(batch(), BatchRng(0, total=8), Progress(0, 1))
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
        assert any(not torch.equal(v, dict(model.named_buffers())[k]) for k, v in mine.items())
    assert next(len(list(m)) for m in model.modules() if isinstance(m, ParametrizationList)) == 1


def test_initial_weights_are_orthogonal() -> None:
    model = biggan(channels=8)
    found = 0
    for name, p in model.named_parameters():
        if p.ndim > 1:
            w = p.detach().flatten(1)
            w = w if w.shape[0] <= w.shape[1] else w.T
            torch.testing.assert_close(w @ w.T, torch.eye(len(w)), atol=1e-4, rtol=0, msg=name)
            found += 1
        elif name.endswith("bias") and "norm" not in name:
            assert not p.any()
    assert found > 20


# blocks


def test_attention_begins_as_nothing() -> None:
    layer, x = Attention(16), torch.randn(2, 16, 6, 8)
    assert torch.equal(layer(x), x)
    with torch.no_grad():
        layer.gamma.fill_(0.5)
        y = layer(x)
    # by hand, place by place
    theta, phi, g = (torch.einsum("oi,bihw->bohw", c.weight[:, :, 0, 0], x) for c in (layer.theta, layer.phi, layer.g))
    phi, g = (nn.functional.max_pool2d(m, 2).flatten(2) for m in (phi, g))
    for row, column in ((0, 0), (3, 7)):
        weights = torch.einsum("bc,bcn->bn", theta[:, :, row, column], phi).softmax(1)
        found = torch.einsum("bn,bcn->bc", weights, g) @ layer.o.weight[:, :, 0, 0].T
        torch.testing.assert_close(y[:, :, row, column], x[:, :, row, column] + 0.5 * found)


@pytest.mark.parametrize(("side", "attention", "where"), [(128, 64, 64), (64, 64, 32), (32, 16, 16), (16, 64, 8)])
def test_where_attention_is(side: int, attention: int, where: int) -> None:
    shape = shape_of(BigGANConfig(attention=attention), ImageSpec(3, side, side), 0)
    assert shape.sizes[shape.attention] == (where, where)
    model = biggan(ImageSpec(3, side, side), attention=attention, channels=1).eval()
    for network, x in ((model.generator, torch.zeros(1, 7)), (model.critic, torch.zeros(1, 3, side, side))):
        seen: list[torch.Size] = []
        network.attention.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0].shape[2:]))
        network(x)
        assert seen == [torch.Size((where, where))]
    assert not any(isinstance(m, Attention) for m in biggan(attention=0).modules())


def test_shortcuts() -> None:
    """What a block adds to, with its last convolution at zero: enlarged, halved, with channels dropped or added."""
    x, code = torch.randn(2, 8, 6, 6), torch.randn(2, 3)
    up, deep_up = UpBlock(8, 4, 3), DeepUpBlock(8, 4, 3, up=True)
    down, same, deep = DownBlock(8, 12, True, False), DownBlock(8, 8, False, False), DeepDownBlock(8, 12, True)
    for layer in (up.conv2, deep_up.conv4, down.conv2, same.conv2, deep.conv4):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    bigger, smaller = nn.functional.interpolate(x, scale_factor=2), nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(up(x, code), up.shortcut(bigger))
    assert torch.equal(deep_up(x, code), bigger[:, :4])
    assert down.shortcut is not None
    torch.testing.assert_close(down(x), down.shortcut(smaller))
    assert torch.equal(same(x), x)
    assert torch.equal(deep(x)[:, :8], smaller)
    assert deep.shortcut is not None
    torch.testing.assert_close(deep(x)[:, 8:], deep.shortcut(smaller))


# regularisation


def test_orthogonal_regularisation_and_its_gradient() -> None:
    """Against equation 3 with a mask, and its gradient in closed form, 4 (W W' o (1 - I)) W; vectors are left out."""
    model = biggan()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    embedding = model.generator.embedding
    assert embedding is not None
    penalty = orthogonal_penalty(model.generator, but=embedding)
    penalty.backward()
    expected, matrices = 0.0, 0
    for p in model.generator.parameters():
        if p is embedding.weight or p.ndim < 2:
            assert p.grad is None
            continue
        w = p.detach().flatten(1).double()
        off = (w @ w.T) * (1 - torch.eye(len(w)))
        expected += float(off.square().sum())
        assert p.grad is not None
        torch.testing.assert_close(p.grad.flatten(1).double(), 4 * off @ w, rtol=1e-3, atol=1e-4)
        matrices += 1
    assert matrices > 10
    assert penalty.item() == pytest.approx(expected, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert orthogonal_penalty(model.generator, but=embedding).item() == penalty.item()
    none, some = biggan(orthogonal=0.0), biggan(orthogonal=0.1)
    for one in (none, some):
        one.load_state_dict(model.state_dict())
    losses = [m.generator_loss(batch(), BatchRng(0, total=8), Progress(0, 1))[0].item() for m in (none, some)]
    assert losses[1] - losses[0] == pytest.approx(0.1 * expected, rel=1e-3)


def test_losses_are_hinges() -> None:
    model, b, rng = biggan(orthogonal=0.0).eval(), batch(), BatchRng(3, total=8)
    fake = model.generator(rng.normal("latent", 7), b.label)
    on_real, on_fake = model.critic(b.x.float() / 127.5 - 1, b.label), model.critic(fake, b.label)
    expected = (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()
    torch.testing.assert_close(model.critic_loss(b, rng, Progress(0, 1))[0], expected)
    torch.testing.assert_close(model.generator_loss(b, rng, Progress(0, 1))[0], -on_fake.mean())


# sampling


def test_truncation_bounds_what_the_generator_gets() -> None:
    model = biggan().eval()
    seen: list[Tensor] = []
    model.generator.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    model.sample(200, rng=SampleRng(0, range(200)), options=StandingOptions(truncation=0.3))
    assert 0.25 < float(seen[0].abs().max()) <= 0.3
    model.sample(200, rng=SampleRng(0, range(200)))
    assert float(seen[1].abs().max()) > 2


def test_standing_statistics() -> None:
    """Those of so many batches of the sampler at hand, against one large batch; afterwards all is as it was."""
    model = biggan(channels=8)
    for _ in range(3):
        model.make(BatchRng(5, total=16), torch.zeros(16, dtype=torch.int64))  # statistics of one class
    model.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = next(m for m in model.generator.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    first.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with model.standing(StandingOptions(standing=5, truncation=0.5)):
        assert not first.training
        assert first.running_mean is not None
        assert first.running_var is not None
        torch.testing.assert_close(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
        torch.testing.assert_close(first.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
        assert len(seen) == 5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert first.momentum == 0.1
    options = StandingOptions(standing=2, truncation=0.5)
    many = model.sample(5, rng=SampleRng(0, range(5)), options=options).x
    assert torch.equal(many, model.sample(5, rng=SampleRng(0, range(5)), options=options).x)
    alone = model.sample(1, rng=SampleRng(0, [3]), options=options).x
    assert (many[3].int() - alone[0].int()).abs().max() <= 1
    plain = model.sample(5, rng=SampleRng(0, range(5)), options=StandingOptions(truncation=0.5)).x
    assert not torch.equal(many, plain)
    model.train()
    with model.standing(options):
        pass
    assert model.generator.training
    assert first.training


@pytest.mark.parametrize("deep", [False, True])
def test_nothing_leaks_between_examples_when_judged_or_sampled(deep: bool) -> None:
    """Gradients of one output reach one input and no other; in training only the batch statistics connect them."""
    # four channels may all be cut off by a rectifier at a given place: sixteen are not
    model = biggan(deep=deep, channels=16).eval()
    x = torch.randn(4, 3, 16, 16, requires_grad=True)
    z = torch.randn(4, 7, requires_grad=True)
    label = torch.tensor([0, 1, 2, 0])
    (on_x,) = torch.autograd.grad(model.critic(x, label)[2], x)
    (on_z,) = torch.autograd.grad(model.generator(z, label)[2].square().sum(), z)
    for gradient in (on_x, on_z):
        assert gradient[2].abs().max() > 0
        assert not gradient[[0, 1, 3]].any()
