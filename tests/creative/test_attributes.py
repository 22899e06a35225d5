from __future__ import annotations

import pytest
import torch

from castalia.core.errors import UsageError
from castalia.core.specs.image import ImageSpec
from castalia.creative import attributes
from tests.creative.toy import SCALE, Linear, pictures
from tests.tools import Table


def test_attribute_vector_is_the_difference_of_means():
    a, b = pictures(10, seed=1), pictures(300, seed=2)
    expected = (a.double().mean(0) - b.double().mean(0)).flatten() / SCALE
    assert torch.allclose(attributes.attribute_vector(Linear(), a, b).double(), expected, atol=1e-6)
    with pytest.raises(UsageError):
        attributes.attribute_vector(Linear(), a, b[:0])


def test_class_vectors_against_the_rest():
    x, labels = pictures(300), torch.arange(300) % 3
    data = Table(x, ImageSpec(1, 2, 2, ("cat", "dog", "sun")), labels)
    found = attributes.attribute_vectors(Linear(), data)
    assert list(found) == ["cat", "dog", "sun"]
    for i, name in enumerate(found):
        expected = attributes.attribute_vector(Linear(), x[labels == i], x[labels != i])
        assert torch.allclose(found[name], expected, atol=1e-6)
    unnamed = attributes.attribute_vectors(Linear(), Table(x, ImageSpec(1, 2, 2), labels))
    assert list(unnamed) == ["0", "1", "2"]


def test_caption_words():
    x = pictures(40)
    data = Table(x, ImageSpec(1, 2, 2))
    data.texts = tuple("A smiling Face" if i % 4 == 0 else f"the face of x{i}" for i in range(40))
    found = attributes.attribute_vectors(Linear(), data)
    # "face" is in every caption, "x7" is no word, "of" is too short
    assert list(found) == ["the", "smiling"]
    smiling = torch.arange(40) % 4 == 0
    assert torch.allclose(found["smiling"], attributes.attribute_vector(Linear(), x[smiling], x[~smiling]), atol=1e-6)
    assert torch.allclose(found["smiling"], -found["the"], atol=1e-6)


def test_a_class_comes_before_a_word_of_the_same_name():
    x, labels = pictures(40), (torch.arange(40) % 2)
    data = Table(x, ImageSpec(1, 2, 2, ("cat", "dog")), labels)
    data.texts = tuple("cat hat" if i < 20 else "bird" for i in range(40))
    found = attributes.attribute_vectors(Linear(), data)
    assert list(found) == ["cat", "dog", "bird", "hat"]
    expected = attributes.attribute_vector(Linear(), x[labels == 0], x[labels == 1])
    assert torch.allclose(found["cat"], expected, atol=1e-6)


def test_data_without_attributes():
    with pytest.raises(UsageError, match="no attributes"):
        attributes.attribute_vectors(Linear(), Table(pictures(10), ImageSpec(1, 2, 2)))
    with pytest.raises(UsageError, match="no attributes"):
        attributes.attribute_vectors(Linear(), Table(pictures(10), ImageSpec(1, 2, 2), torch.zeros(10).long()))


def test_apply_attribute_adds_multiples():
    x, vector = pictures(2), torch.tensor([1.0, 0.0, -0.5, 0.0])
    out = attributes.apply_attribute(Linear(), x, vector, (-1.0, 0.0, 2.0))
    assert out.shape == (2, 3, 1, 2, 2)
    assert torch.equal(out[:, 1], x)
    assert torch.equal(out[:, 2, 0, 0, 0].int(), x[:, 0, 0, 0].int() + 32)
    assert torch.equal(out[:, 0, 0, 1, 0].int(), x[:, 0, 1, 0].int() + 8)
    with pytest.raises(UsageError, match="4 values"):
        attributes.apply_attribute(Linear(), x, vector[:3], (1.0,))


def test_arithmetic_row_by_row_and_with_one_for_all():
    a, b, c = (pictures(3, seed=s, low=100, high=140) for s in (1, 2, 3))
    expected = (a.int() - b.int() + c.int()).to(torch.uint8)
    assert torch.equal(attributes.arithmetic(Linear(), a, b, c), expected)
    shared = (a.int() - b[:1].int() + c[:1].int()).to(torch.uint8)
    assert torch.equal(attributes.arithmetic(Linear(), a, b[:1], c[:1]), shared)
    with pytest.raises(UsageError):
        attributes.arithmetic(Linear(), a, b[:2], c)
