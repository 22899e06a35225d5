"""DeepDream: what each step does, octaves, films, guides, and pictures of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from castalia.core.errors import UsageError
from castalia.core.rng import SampleRng
from castalia.creative import dreams
from castalia.creative.dreams import Settings
from castalia.creative.looking import Layer, layers, tiles
from castalia.nn.seeing import Seeing

SIZE = (16, 20)


def eye(seed: int = 0) -> Seeing:
    """A small random network: two convolutions, which take any size, and a dense layer, which does not."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(8, 6, 4, stride=2, padding=1),
            nn.Flatten(),
            nn.Linear(6 * 8 * 10, 5),
        )
    return Seeing(network, lambda x: x / 127.5 - 1).eval()


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return 60 + 120 * SampleRng(seed, [0]).uniform("picture", 3, *size)


def rng() -> SampleRng:
    return SampleRng(3, [0])


# looking


def test_layers_are_listed_with_their_shapes() -> None:
    found = layers(eye(), SIZE, 3)
    assert found == {
        "layers.0": (8, 16, 20),
        "layers.1": (8, 16, 20),
        "layers.2": (6, 8, 10),
        "layers.3": (480,),
        "layers.4": (5,),
        "layers": (5,),
    }


def test_a_layer_that_runs_twice_is_left_out() -> None:
    twice = nn.Conv2d(3, 3, 3, padding=1)
    assert set(layers(nn.Sequential(nn.Conv2d(3, 3, 1), twice, nn.ReLU(), twice), SIZE, 3)) == {"0", "2"}


def test_what_does_not_depend_on_the_picture_is_left_out() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.look, self.label = nn.Conv2d(3, 4, 1), nn.Embedding(1, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.look(x).mean((2, 3)) + self.label(torch.zeros(len(x), dtype=torch.int64))

    assert set(layers(nn.Sequential(Beside()), SIZE, 3)) == {"0", "0.look"}


def test_what_is_seen_is_what_the_layer_returns_and_rest_is_not_run() -> None:
    network, x = eye(), picture()
    body = network.layers
    assert isinstance(body, nn.Sequential)
    layer = Layer(network, "layers.2", SIZE, 3)
    assert torch.equal(layer.see(x), body[:3](x / 127.5 - 1))
    assert not body[2]._forward_hooks, "the hook stays"
    other = picture((31, 37))  # the dense layer behind would refuse it
    assert torch.equal(layer.see(other), body[:3](other / 127.5 - 1))


def test_names() -> None:
    assert Layer(eye(), "2", SIZE, 3).name == "layers.2"
    assert Layer(eye(), None, SIZE, 3).name == "layers.1"
    with pytest.raises(UsageError, match=r"Did you mean.*layers\.4(.|\n)*layers\.4: 5 values") as error:
        Layer(eye(), "layer.4", SIZE, 3)
    assert "layers.2: 6 maps of 8x10" in str(error.value)


def test_dense_layers_see_larger_pictures_in_tiles() -> None:
    network, x = eye(), picture((40, 20))
    seen = Layer(network, "layers.4", SIZE, 3).see(x)
    by_hand = torch.cat([network(x[:, :, r : r + 16]) for r in (0, 12, 24)])
    torch.testing.assert_close(seen, by_hand)


@pytest.mark.parametrize("size", [(16, 20), (17, 20), (50, 61), (8, 61), (7, 9)])
def test_tiles_cover_the_picture(size: tuple[int, int]) -> None:
    x = picture(size).requires_grad_(True)
    cut = tiles(x, SIZE)
    assert cut.shape[2:] == SIZE
    (gradient,) = torch.autograd.grad(cut.sum(), x)
    assert (gradient > 0).all(), "some of it is not looked at"
    if size == SIZE:
        assert torch.equal(cut, x)


# steps


def test_a_step_is_normalised_by_the_gradients_mean() -> None:
    weight = SampleRng(0, [0]).normal("weight", 3, *SIZE)

    def linear(x: Tensor) -> Tensor:
        return 1000 * (weight * x).sum()

    x = torch.full((1, 3, *SIZE), 127.5)
    change = dreams.ascend(linear, x, 1.5) - x
    assert change.abs().mean().item() == pytest.approx(1.5, rel=1e-4)
    torch.testing.assert_close(change, 1.5 * weight / weight.abs().mean(), rtol=1e-3, atol=1e-4)


def test_a_flat_place_stays_as_it_is() -> None:
    x = picture()
    assert torch.equal(dreams.ascend(lambda x: 0 * x.sum(), x, 1.5, (3, 5)), x)


def test_a_moved_picture_comes_back() -> None:
    """The objective sees it moved; where it does not matter where a thing is, the step is the same."""
    x, seen = picture(), []

    def objective(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return (x**2).sum()

    plain, moved = dreams.ascend(objective, x, 1.5), dreams.ascend(objective, x, 1.5, (3, -5))
    assert torch.equal(plain, moved)
    assert torch.equal(seen[1], x.roll((3, -5), (2, 3)))


def test_values_stay_in_range() -> None:
    made = dreams.ascend(lambda x: x.sum(), picture(), 200.0)
    assert made.max() == 255


def test_movements_are_bounded_by_the_picture() -> None:
    moves = [dreams._move(rng().at(i), 32, (16, 200)) for i in range(300)]
    assert {abs(down) for down, _ in moves} == set(range(9))
    assert max(abs(right) for _, right in moves) in (31, 32)
    assert {right < 0 for _, right in moves} == {True, False}
    assert dreams._move(rng(), 0, (16, 200)) == (0, 0)


# octaves


def test_octave_sizes() -> None:
    assert dreams.octave_sizes(224, 320, 4, 1.4) == [(82, 117), (114, 163), (160, 229), (224, 320)]
    assert dreams.octave_sizes(16, 20, 4, 1.4) == [(8, 10), (11, 14), (16, 20)]  # no smaller than eight
    assert dreams.octave_sizes(4, 4, 3, 2.0) == [(4, 4)]  # but the picture's own


@pytest.mark.parametrize(
    ("layer", "jitter"),
    # a random dense layer sees something else in every place: moved about, it has no direction to climb in
    [("layers.0", 0), ("layers.0", 4), ("layers.2", 0), ("layers.2", 4), ("layers.4", 0)],
)
def test_the_objective_rises_in_every_octave(layer: str, jitter: int) -> None:
    network = eye()
    objective = dreams.seen_more(Layer(network, layer, SIZE, 3))
    x = picture((48, 40))
    dreamed = dreams.dream(objective, x, rng(), Settings(octaves=3, iterations=8, step=2.0, jitter=jitter))
    assert [o.size for o in dreamed.octaves] == [(24, 20), (34, 29), (48, 40)]
    assert all(o.after > 1.05 * o.before for o in dreamed.octaves), dreamed.octaves
    assert objective(dreamed.x) > 1.2 * objective(x)
    assert dreamed.x.shape == x.shape
    assert dreamed.x.min() >= 0
    assert dreamed.x.max() <= 255
    assert all(p.grad is None for p in network.parameters()), "the network's weights got gradients"


def test_every_step_of_a_smooth_objective_rises() -> None:
    objective = dreams.seen_more(Layer(eye(), "layers.2", SIZE, 3))
    values: list[float] = []
    settings = Settings(octaves=1, iterations=12, step=1.0, jitter=0)
    dreams.dream(objective, picture(), rng(), settings, lambda x: values.append(objective(x).item()))
    assert len(values) == 12
    assert values == sorted(values)


def test_detail_is_carried_between_octaves() -> None:
    """What an octave finds is not undone: with no steps to speak of in the last, its detail is still there."""
    x, seen = picture((32, 32)), []
    objective = dreams.seen_more(Layer(eye(), "layers.2", SIZE, 3))
    dreams.dream(objective, x, rng(), Settings(2, 2.0, 5, 2.0, 0), seen.append)
    small, large = seen[4], seen[5]
    detail = dreams.resized(small - dreams.resized(x, (16, 16)), (32, 32))
    assert (large - (x + detail).clamp(0, 255)).abs().mean().item() == pytest.approx(2.0, rel=0.1)  # one step from it


def test_same_seed_same_dream() -> None:
    objective = dreams.seen_more(Layer(eye(), "layers.2", SIZE, 3))
    one, again, other = (
        dreams.dream(objective, picture(), SampleRng(seed, [0]), Settings(octaves=2, iterations=3)).x
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_alpha_stays_as_it_is() -> None:
    x = torch.cat([picture(), torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0)) * 255], 1)
    dreamed = dreams.dream(lambda x: x.sum(), x, rng(), Settings(octaves=1)).x
    assert torch.equal(dreamed[:, 3], x[:, 3])
    assert not torch.equal(dreamed[:, :3], x[:, :3])


@pytest.mark.parametrize("weight", [0.0, 50.0])
def test_steps_of_colours_are_as_long_beside_alpha(weight: float) -> None:
    """Whether the objective sees alpha or not."""
    x = torch.cat([picture(), torch.full((1, 1, *SIZE), 128.0)], 1)
    slope = torch.randn(1, 4, *SIZE, generator=torch.Generator().manual_seed(0))
    slope[:, 3] *= weight
    change = dreams.ascend(lambda x: (x * slope).sum(), x, 1.5, (2, 3)) - x
    assert change[:, :3].abs().mean().item() == pytest.approx(1.5, rel=1e-3)
    assert not change[:, 3].any()


# what is dreamed of


def test_a_single_unit() -> None:
    layer = Layer(eye(), "layers.2", SIZE, 3)
    x = picture()
    dreamed = dreams.dream(dreams.seen_more(layer, 3), x, rng(), Settings(octaves=1, jitter=0)).x
    rise = (layer.see(dreamed) - layer.see(x)).mean((0, 2, 3))
    assert rise.argmax() == 3
    with pytest.raises(UsageError, match="0 to 5"):
        dreams.seen_more(layer, 6)


def test_guided_gradient_is_the_best_match() -> None:
    """The gradient at the layer is, at each place, the guide's vector with the greatest dot product."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False)).eval()
    nn.init.dirac_(network[0].weight)  # type: ignore[arg-type]
    layer = Layer(network, "0", (4, 4), 3)
    guide, x = picture((4, 4), 1), picture((4, 4), 2).requires_grad_(True)
    (gradient,) = torch.autograd.grad(dreams.guided(layer, guide)(x), x)
    places, wanted = x.detach()[0].flatten(1).T, guide[0].flatten(1).T
    best = torch.stack([wanted[max(range(16), key=lambda j: float(p @ wanted[j]))] for p in places])
    torch.testing.assert_close(gradient[0].flatten(1).T * 16, best)


def test_a_guide_draws_towards_itself() -> None:
    layer = Layer(eye(), "layers.2", SIZE, 3)
    one, other = picture(seed=5).sub(110).mul(3).clamp(0, 255), 255 - picture(seed=6)
    towards = [
        dreams.dream(dreams.guided(layer, g), picture(), rng(), Settings(octaves=1, jitter=0)).x for g in (one, other)
    ]
    for i, guide in enumerate((one, other)):
        values = [dreams.guided(layer, guide)(x).item() for x in towards]
        assert values[i] == max(values)


# films


def test_zoom_keeps_the_middle() -> None:
    ramp = torch.arange(100.0).view(1, 1, 1, 100).expand(1, 1, 50, 100)
    near = dreams.zoomed(ramp, 0.1)
    torch.testing.assert_close(near[0, 0, 7], 49.5 + 0.9 * (torch.arange(100.0) - 49.5), rtol=0, atol=1e-3)
    assert dreams.zoomed(ramp, 0) is ramp


def test_a_film_dreams_on() -> None:
    objective = dreams.seen_more(Layer(eye(), "layers.2", SIZE, 3))
    settings, x, told = Settings(octaves=1, iterations=3), picture(), []
    frames = dreams.film(objective, x, rng(), 3, 0.1, settings, lambda i, x: told.append(i))
    assert frames.shape == (3, 3, *SIZE)
    assert told == [0, 1, 2]
    second = dreams.dream(objective, dreams.zoomed(frames[:1], 0.1), rng().at("frame", 1), settings).x
    assert torch.equal(frames[1:2], second)
    for frames_, zoom in ((0, 0.1), (2, 1.0), (2, -0.1)):
        with pytest.raises(UsageError, match="film"):
            dreams.film(objective, x, rng(), frames_, zoom)


def test_noise() -> None:
    x = dreams.noise(rng(), 4, (30, 30))
    assert (x[:, 3] == 255).all()
    assert (x[:, :3] - 127.5).abs().max() <= 32
    assert x[:, :3].std() > 15


@pytest.mark.parametrize("wrong", [{"octaves": 0}, {"scale": 1.0}, {"iterations": 0}, {"step": 0.0}, {"jitter": -1}])
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Settings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one picture"):
        dreams.dream(lambda x: x.sum(), picture()[0], rng())
