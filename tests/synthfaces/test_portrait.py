"""The picture: reproducible, labels that agree with the geometry, landmarks where the features are."""

from dataclasses import replace

import numpy as np
import pytest

from s2flib.datasets.celeba import LABELS as CELEBA_LABELS
from s2flib.synthfaces.identity import sample_identity
from s2flib.synthfaces.labels import LABEL, LABELS, majority
from s2flib.synthfaces.look import BEARDS, HAIR_STYLES, HATS, sample_glasses, sample_hat, sample_look
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.shot import EXPRESSIONS, sample_action, sample_light, sample_shot
from s2flib.synthfaces.streams import stream

SIZE = 64


@pytest.fixture(scope="module")
def plain(scene):
    """A frontal, bare-faced woman and her picture at 128 px."""
    s = scene(1, male=False)
    look = replace(s.look, glasses=None, hat=None, style="ponytail", earrings=0.03, necklace=True)
    shot = replace(s.shot, yaw=0.0, pitch=0.0, roll=0.0, expression="neutral", action={}, gaze=(0.0, 0.0))
    person = Person(s.identity, look)
    return person, shot, photograph(person, shot, 128, keep_buffers=True)


def test_labels_are_celebamask_hqs():
    assert tuple(LABELS) == tuple(CELEBA_LABELS)


def test_same_seed_same_pixels(plain):
    person, shot, picture = plain
    again = photograph(Person(person.identity, person.look), shot, 128)
    assert (again.rgb == picture.rgb).all() and (again.labels == picture.labels).all()
    assert picture.rgb.shape == (128, 128, 3) and picture.rgb.dtype == picture.labels.dtype == np.uint8
    assert 20 < picture.rgb.mean() < 235 and picture.rgb.std() > 20


def test_size_changes_only_the_resolution(plain):
    person, shot, picture = plain
    small = photograph(person, shot, 64)
    reduced = picture.rgb.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(reduced - small.rgb).mean() < 5
    assert np.allclose(small.landmarks * 2, picture.landmarks, atol=1e-3)


def test_every_face_label_lies_where_the_geometry_says(plain):
    person, _, picture = plain
    present = {LABELS[i] for i in np.unique(picture.labels)}
    assert present >= {
        "background",
        "skin",
        "nose",
        "l_eye",
        "r_eye",
        "l_brow",
        "r_brow",
        "u_lip",
        "l_lip",
        "hair",
        "neck",
        "cloth",
        "l_ear",
        "r_ear",
    }

    def centre(name):
        return np.array(np.nonzero(picture.labels == LABEL[name])).mean(1)[::-1]

    points = picture.landmarks
    for name, index in (
        ("r_eye", slice(36, 42)),
        ("l_eye", slice(42, 48)),
        ("r_brow", slice(17, 22)),
        ("l_brow", slice(22, 27)),
        ("nose", slice(27, 36)),
    ):
        assert np.hypot(*(centre(name) - points[index].mean(0))) < 4, name
    assert centre("r_eye")[0] < centre("nose")[0] < centre("l_eye")[0]  # the person's right is on the left
    assert centre("l_brow")[1] < centre("l_eye")[1] < centre("u_lip")[1] < centre("l_lip")[1] < centre("neck")[1]
    mouth = points[48:68].mean(0).round().astype(int)
    assert picture.labels[mouth[1], mouth[0]] in (LABEL["u_lip"], LABEL["l_lip"], LABEL["mouth"])


def test_labels_agree_with_depth_and_cover(plain):
    _, _, picture = plain
    b = picture.buffers
    mesh_seen = np.isfinite(b.depth)
    assert (b.labels[mesh_seen] != LABEL["background"]).all()
    assert np.isin(b.labels[~mesh_seen], [LABEL["background"], LABEL["hair"], LABEL["skin"]]).all()
    background = picture.labels == LABEL["background"]
    assert (picture.cover[background] < 0.8).all() and (picture.cover[picture.labels == LABEL["nose"]] > 0.99).all()


def test_landmarks_follow_the_camera_and_the_mirror(plain):
    person, shot, picture = plain
    p = picture.landmarks
    assert p.shape == (68, 2) and (p > 0).all() and (p < 128).all()
    jaw = p[:17]
    assert (np.diff(jaw[:, 0]) > 0).all() and jaw[8, 1] == jaw[:, 1].max()
    right = np.abs(p[36:42].mean(0) - p[30]), np.abs(p[42:48].mean(0) - p[30])
    assert np.allclose(right[0], right[1], atol=3)
    # FFHQ's alignment: eyes level, the face's middle in the middle
    assert abs(p[36:42].mean(0)[1] - p[42:48].mean(0)[1]) < 1.5
    assert abs(p[27:31].mean(0)[0] - 64) < 3
    turned = photograph(person, replace(shot, yaw=0.35), 64).landmarks
    nose = (turned[30, 0] - turned[36:48, 0].mean()) / 64
    assert nose > 0.03  # towards the picture's right


def test_an_expression_moves_the_mouth_and_not_the_frame(plain):
    person, shot, picture = plain
    opened = photograph(person, replace(shot, action={"jawOpen": 0.5}), 128)
    assert opened.landmarks[57, 1] - picture.landmarks[57, 1] > 3  # lower lip
    assert np.abs(opened.landmarks[36:48] - picture.landmarks[36:48]).max() < 0.5
    assert (opened.labels == LABEL["mouth"]).sum() > (picture.labels == LABEL["mouth"]).sum() + 20
    shut = photograph(person, replace(shot, action={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}), 128)
    eyes = [LABEL["l_eye"], LABEL["r_eye"]]
    assert np.isin(shut.labels, eyes).sum() < 0.2 * np.isin(picture.labels, eyes).sum()


def test_other_shots_keep_the_person(scene):
    person = sample_identity(21, 5)
    a, b = sample_shot(person, 21, 5, 0), sample_shot(person, 21, 5, 1)
    assert a != b and a.light != b.light and a.background != b.background
    first = Person(person, sample_look(person, 21, 5))
    second = Person(person, sample_look(person, 21, 5, day=1), like=first)
    assert second.base is first.base  # geometry is the identity's alone


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_every_hair_style_renders(scene, style):
    s = scene(2)
    picture = photograph(Person(s.identity, replace(s.look, style=style, hat=None)), s.shot, SIZE)
    hair = (picture.labels == LABEL["hair"]).mean()
    assert hair == 0 if style == "bald" else hair > 0.02


def test_every_accessory_beard_light_and_expression_renders(scene):
    s = scene(4, male=True)
    rng = stream(0, "test")
    base = replace(s.look, style="short", hat=None, glasses=None, beard="none")
    for kind in HATS:
        picture = photograph(Person(s.identity, replace(base, hat=sample_hat(rng, kind))), s.shot, SIZE)
        assert (picture.labels == LABEL["hat"]).mean() > 0.05
        top = np.nonzero((picture.labels == LABEL["hat"]).any(0))[0]
        assert np.ptp(top) > SIZE / 3
    for sun in (True, False):
        picture = photograph(Person(s.identity, replace(base, glasses=sample_glasses(rng, sun))), s.shot, SIZE)
        assert (picture.labels == LABEL["eye_g"]).mean() > 0.02  # lenses belong to it
    bare = photograph(Person(s.identity, base), s.shot, SIZE)
    for beard in BEARDS[1:]:
        picture = photograph(Person(s.identity, replace(base, beard=beard)), s.shot, SIZE)
        chin = np.isin(bare.labels, [LABEL["skin"], LABEL["neck"]])
        assert np.abs(picture.rgb.astype(int) - bare.rgb)[chin].max() > 15
    person = Person(s.identity, base)
    for name in EXPRESSIONS:
        photograph(person, replace(s.shot, action=sample_action(name, rng)), 32)
    for name in ("window", "overcast", "studio", "golden", "indoor"):
        picture = photograph(person, replace(s.shot, light=sample_light(rng, name)), 32)
        assert 15 < picture.rgb[picture.labels == LABEL["skin"]].mean() < 240


def test_tone_orders_brightness_and_light_comes_from_its_side(scene):
    s = scene(6, male=True)
    look = replace(s.look, style="bald", hat=None, glasses=None, beard="none")
    shot = replace(s.shot, yaw=0.0, pitch=0.0, roll=0.0)
    light = shot.light
    shades = []
    for tone in (0.5, 3.0, 6.0):
        picture = photograph(Person(replace(s.identity, tone=tone), look), shot, SIZE)
        shades.append(picture.rgb[picture.labels == LABEL["skin"]].mean())
    assert shades[0] > shades[1] + 15 > shades[2] + 30
    person = Person(s.identity, look)
    for x in (-0.8, 0.8):
        lit = replace(light, name="x", key_direction=(x, 0.3, 0.5), key_rgb=(1.4,) * 3, key_size=0.1, rim_rgb=(0, 0, 0))
        picture = photograph(person, replace(shot, light=lit), SIZE)
        skin = picture.labels == LABEL["skin"]
        left, right = (
            picture.rgb[skin & side].mean()
            for side in (np.arange(SIZE)[None] < SIZE // 2, np.arange(SIZE)[None] >= SIZE // 2)
        )
        assert (right > left + 10) if x > 0 else (left > right + 10)


def test_majority_takes_the_most_frequent():
    labels = np.array([[1, 1, 2, 3], [1, 4, 3, 3]], np.uint8)
    assert (majority(labels, 2) == [[1, 3]]).all()
    assert majority(labels, 1) is labels
