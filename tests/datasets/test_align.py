"""Alignment of photographs: NASA's astronaut (public domain, inside scikit-image's wheel)."""

import cv2
import numpy as np
import pytest
from skimage import data

from s2flib.datasets.align import SYNTHFACES_LANDMARKS, align_face, find_faces, similarity_transform
from s2flib.errors import ImageError


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()[:256, 96:352]


def test_similarity_transform_recovers_a_known_one():
    points = np.random.default_rng(0).normal(size=(5, 2)) * 20
    angle, scale, shift = 0.4, 1.7, np.array([3.0, -8.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity_transform(points, points @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.hstack([turn, shift[:, None]]), atol=1e-9)
    mirrored = similarity_transform(points, points * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0


def test_similarity_transform_equals_umeyamas_svd_on_noisy_points():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 5, 2))
    b += 2 * a
    da, db = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(db.T @ da)  # Umeyama (1991), Eqs. 38-42
    sign = np.diag([1, np.sign(np.linalg.det(u @ vt))])
    turn = np.trace(np.diag(s) @ sign) / (da**2).sum() * u @ sign @ vt
    expected = np.hstack([turn, (b.mean(0) - turn @ a.mean(0))[:, None]])
    np.testing.assert_allclose(similarity_transform(a, b), expected, atol=1e-9)


def test_an_aligned_face_lies_in_the_frame_however_the_photo_was_turned(astronaut):
    turned = cv2.warpAffine(
        astronaut, cv2.getRotationMatrix2D((128, 128), 20, 0.8), (256, 256), borderMode=cv2.BORDER_REFLECT
    )
    for photo in (astronaut, turned):
        out = align_face(photo, 256)
        assert out.shape == (256, 256, 3) and out.dtype == np.uint8
        (face,) = find_faces(out)
        error = np.abs(face.landmarks / 256 - SYNTHFACES_LANDMARKS)
        assert error.max() < 0.05 and error[:2].max() < 0.03


def test_a_large_photo_gives_the_same_face_as_a_small_one(astronaut):
    large = cv2.resize(astronaut, (1400, 1400), interpolation=cv2.INTER_CUBIC)
    a, b = (align_face(photo, 96).astype(float).reshape(24, 4, 24, 4, 3).mean((1, 3)) for photo in (astronaut, large))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    assert np.corrcoef(a.ravel(), b[:, ::-1].ravel())[0, 1] < 0.8


def test_two_faces_must_be_chosen_between(astronaut):
    pair = np.hstack([astronaut, astronaut[:, ::-1]])
    with pytest.raises(ImageError, match="2 faces"):
        align_face(pair, 128)
    left, right = align_face(pair, 128, which=0), align_face(pair, 128, which=1)
    alone = align_face(astronaut, 128)
    assert np.abs(left.astype(float) - alone).mean() < 8 < np.abs(right.astype(float) - alone).mean()
    for wrong in (2, -1):
        with pytest.raises(ImageError, match="from 0 to 1"):
            align_face(pair, 128, which=wrong)


@pytest.mark.parametrize("picture", [np.full((200, 200, 3), 230, np.uint8), data.coffee()[:200, :200]])
def test_no_face(picture):
    with pytest.raises(ImageError, match="no face"):
        align_face(picture, 128)


@pytest.mark.parametrize("bad", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((4, 64, 3), np.uint8)])
def test_bad_arrays(bad):
    with pytest.raises(ImageError):
        align_face(bad, 128)


def test_bad_size(astronaut):
    with pytest.raises(ImageError, match="too small"):
        align_face(astronaut, 8)
