"""A default fits the data and the time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import castalia
from castalia import api, fitting, recipes
from castalia.catalogue import CATALOGUE
from castalia.core.errors import UsageError
from castalia.media.image.decode import ImageOptions
from castalia.media.image.drawn import LETTERS, SHAPES
from castalia.media.rooms import room
from castalia.training import plan


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Twenty-four grey pictures of 12 pixels in two class folders."""
    random = np.random.default_rng(0)
    for name, bright in (("dark", 40), ("light", 200)):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(bright + random.normal(0, 20, (12, 12)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{i}.png")
    return tmp_path / "pics"


def test_every_preset_is_a_recipe_for_any_data_of_its_medium():
    for system in CATALOGUE:
        for medium, presets in recipes.of(system).presets.items():
            assert medium in CATALOGUE[system].media
            for preset in presets:
                made = recipes.recipe(preset.recipe)
                assert (made.model, made.data.medium) == (system, medium)
                assert made.data.source not in room(medium).named()
                labelled = api.make_recipe(recipe=preset.recipe, settings=preset.labelled)
                assert (labelled.config != made.config) == bool(preset.labelled)
            if presets:  # own data have no recipe of their own, and so are fitted
                assert recipes.presets(system, "anywhere", medium) == presets


def test_the_best_preset_that_gets_its_steps_is_taken(letters: Path, monkeypatch: pytest.MonkeyPatch):
    speeds = {"ddpm-pictures-32": 9_000, "ddpm-pictures-32-wide": 5_500, "ddpm-pictures": 500}
    names = {repr(recipes.recipe(name).config): name for name in speeds}

    def foresee(recipe, data):
        steps = speeds[names[repr(recipe.config)]]
        return plan.Plan(steps, "float32", 1, "measured", (steps,), 1)

    monkeypatch.setattr(fitting, "foresee", foresee)
    found = recipes.presets("ddpm", str(letters), "image")

    def make(name: str, first) -> recipes.Recipe:  # type: ignore[name-defined]
        return api.make_recipe("ddpm", str(letters), recipe=name, settings=list(first), minutes=5)

    fitted = fitting.fit(found, make, api.training_data, classes=False)
    assert fitted.recipe.config == recipes.recipe("ddpm-pictures-32-wide").config
    assert "larger network is taken: ddpm-pictures." in " ".join(fitted.said)
    assert "Nobody has measured" in " ".join(fitted.said)  # of this one
    speeds["ddpm-pictures-32-wide"] = 4_000
    fitted = fitting.fit(found, make, api.training_data, classes=False)
    assert fitted.recipe.config == recipes.recipe("ddpm-pictures-32").config
    assert "Nobody has measured" not in " ".join(fitted.said)
    speeds["ddpm-pictures-32"] = 100
    fitted = fitting.fit(found, make, api.training_data, classes=False)
    assert "That is little" in " ".join(fitted.said)  # the quickest there is


def test_own_pictures_keep_their_size_and_their_classes(letters: Path, tmp_path: Path, capsys):
    run = castalia.train("ddpm", str(letters), tmp_path / "run", steps=2, batch_size=4)
    assert run.spec.shape == (1, 12, 12)  # smaller than the preset's 32 pixels: as they are
    assert run.recipe.config.conditional  # type: ignore[attr-defined]
    assert any("2 classes" in text for text in castalia.load(run.path).said)
    said = capsys.readouterr().err
    assert "Chosen: ddpm-pictures-32, " in said  # for so few steps the quickest
    assert "--no-classes" in said
    again = castalia.train("ddpm", str(letters), tmp_path / "run", steps=2, batch_size=4, resume=True, quiet=True)
    assert again.recipe == run.recipe


def test_classes_can_be_left_out_and_what_is_left_out_is_said(letters: Path, tmp_path: Path, capsys):
    run = castalia.train("ddpm", str(letters), tmp_path / "a", steps=1, batch_size=4, classes=False)
    assert not run.recipe.config.conditional  # type: ignore[attr-defined]
    assert "The data have 2 classes, which this model does not learn." in capsys.readouterr().err
    with pytest.raises(UsageError, match="cannot learn classes"):
        castalia.train("vae", str(letters), tmp_path / "b", steps=1, classes=True)
    with pytest.raises(UsageError, match="a recipe is taken as it stands"):
        castalia.train("ddpm", "digits", tmp_path / "d", steps=1, classes=False)
    with pytest.raises(UsageError, match="has no classes"):
        castalia.train("ddpm", str(letters / "dark"), tmp_path / "c", steps=1, classes=True)


def test_settings_are_keywords_and_wrong_ones_name_the_right_one(letters: Path, tmp_path: Path):
    run = castalia.train("vae", "digits", tmp_path / "a", steps=1, lr=0.01, latent_dims=3, quiet=True)
    assert run.recipe.training.lr == 0.01
    assert run.recipe.config.latent_dims == 3  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"Write lr="):
        castalia.train("vae", "digits", tmp_path / "b", learning_rate=0.1)
    with pytest.raises(UsageError, match="'latent_dims'"):
        castalia.train("vae", "digits", tmp_path / "b", latent_dim=3)
    with pytest.raises(UsageError, match=r"--set training\.lr=0\.1"):
        api.make_recipe("vae", "digits", settings=["lr=0.1"])


def test_names_are_found_whatever_their_case():
    assert api.make_recipe("VAE", "digits").model == "vae"
    assert api.make_recipe(recipe="VAE-Digits").model == "vae"


def test_data_are_remembered_by_their_absolute_path(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(letters.parent)
    assert Path(api.make_recipe("ddpm", "pics", recipe="ddpm-pictures-32").data.source) == letters.resolve()
    assert api.make_recipe("vae", "digits").data.source == "digits"


def test_a_larger_set_is_scaled_to_the_size_of_the_preset(tmp_path: Path):
    for i in range(3):
        Image.new("L", (40, 48)).save(tmp_path / f"{i}.png")
    image, asked = room("image"), ImageOptions(size=32)
    assert image.as_found(str(tmp_path), asked) == asked
    Image.new("L", (20, 24)).save(tmp_path / "3.png")
    assert image.as_found(str(tmp_path), ImageOptions(size=64)).size == 64  # they differ among each other
    assert image.as_found("digits", asked).size is None


def test_drawn_sets_are_what_they_say():
    shapes = api.open_data("shapes", split="test")
    assert shapes.spec.shape == (3, 32, 32)
    assert shapes.spec.classes == SHAPES
    label = shapes.batch(np.arange(200)).label
    assert label is not None
    for i in range(200):
        words = shapes.texts[i].split()
        assert words[3] == SHAPES[int(label[i])]
    assert len(set(shapes.texts)) > 200
    letters = api.open_data("letters", split="test")
    assert letters.spec.classes == LETTERS
    assert len(letters) == 1040
    assert api.open_data("letters", split="train").fingerprint != letters.fingerprint
    captioned = api.open_data("shapes", split="test", options=ImageOptions(captions=40))
    text = captioned.batch(np.arange(1)).extra["caption"][0]
    assert bytes(text[text >= 0].tolist()).decode() == captioned.texts[0]


def test_one_odd_file_does_not_change_all_without_a_note(tmp_path: Path):
    for i in range(5):
        Image.new("L", (8, 8), 40 * i).save(tmp_path / f"{i}.png")
    Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "grey.webp", lossless=True)
    grey = api.open_data(str(tmp_path))
    assert grey.spec.shape == (1, 8, 8)  # type: ignore[attr-defined]
    assert any("read as grey" in note for note in grey.notes)
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "red.png")
    colour = api.open_data(str(tmp_path))
    assert colour.spec.shape == (3, 8, 8)  # type: ignore[attr-defined]
    assert any("2 of 7 pictures have colour" in note and "channels=1" in note for note in colour.notes)
    Image.new("RGBA", (8, 8), (200, 10, 10, 128)).save(tmp_path / "clear.png")
    assert any("1 of 8 pictures may be transparent" in note for note in api.open_data(str(tmp_path)).notes)


def test_no_minutes_are_refused(letters: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="--minutes must be more than 0"):
        castalia.train("vae", str(letters), tmp_path / "a", minutes=0)


def test_data_that_moved_are_said_once_more(letters: Path, tmp_path: Path):
    run = castalia.train("vae", str(letters), tmp_path / "run", steps=2, batch_size=4, quiet=True)
    moved = letters.rename(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="are gone"):
        found = castalia.evaluate(run, str(moved), split="train", drawn=0, samples=1, baselines=True)
    assert "nll" in found["metrics"]
    again = castalia.train(data=str(moved), out=run.path, resume=True, quiet=True)
    assert again.steps_done() == 2
    again = castalia.train(
        "vae", str(moved), run.path, steps=2, batch_size=4, resume=True, quiet=True
    )  # the same words
    assert again.steps_done() == 2
    with pytest.raises(UsageError, match=r"training\.steps: 2 against 3"):  # what was changed is named, and only that
        castalia.train("vae", str(moved), run.path, steps=3, batch_size=4, resume=True, quiet=True)
    moved.rename(tmp_path / "third")
    with pytest.raises(UsageError, match="say where they are now with --data"):
        castalia.train(out=run.path, resume=True, quiet=True)


def test_a_set_that_is_built_in_says_where_the_folder_of_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert any("./digits" in note for note in api.open_data("digits").notes)
