"""The person's mask in a portrait: on rendered people whose mask is known, on a real one, on pictures of nobody."""

import numpy as np
import pytest
from skimage.data import astronaut

from s2flib.datasets import open_dataset
from s2flib.datasets.align import align_face
from s2flib.datasets.foreground import person_mask
from s2flib.errors import ImageError


def iou(a, b):
    a, b = a > 0, b > 0
    return (a & b).sum() / (a | b).sum()


def test_rendered_people_are_found():
    val = open_dataset("tiny", "val", limit=40)
    found = []
    for i in range(0, 40, 4):
        photo, mask = val.read(i)
        got = person_mask(photo)
        assert got.shape == mask.shape and got.dtype == np.uint8 and set(np.unique(got)) <= {0, 1}
        found.append(iou(got, mask))
    assert np.median(found) > 0.82, found
    blank = np.median([iou(np.ones_like(val.read(i)[1]), val.read(i)[1]) for i in range(0, 40, 4)])
    assert np.median(found) > blank + 0.2, "better than no mask"


def test_a_real_portrait():
    photo = align_face(astronaut(), 256)
    mask = person_mask(photo)
    assert mask[140, 128] == 1 and mask[5, 5] == 0 and mask[5, 250] == 0
    assert 0.3 < mask.mean() < 0.8
    assert np.array_equal(mask, person_mask(photo))


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_nobody_gives_the_ellipse(value):
    mask = person_mask(np.full((64, 96, 3), value, np.uint8))
    assert mask.shape == (64, 96) and mask[32, 48] == 1 and mask[0, 0] == 0 and 0.125 < mask.mean() < 0.9


def test_refuses_other_arrays():
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ImageError, match="photo is an array"):
            person_mask(wrong)
