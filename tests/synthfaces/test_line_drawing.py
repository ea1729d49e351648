"""Line drawings: lines where the features are, nothing of tone and light in them."""

from dataclasses import replace

import numpy as np
import pytest

from s2flib.synthfaces.drawing import HANDS, line_drawing
from s2flib.synthfaces.person import Person
from s2flib.synthfaces.portrait import photograph
from s2flib.synthfaces.shot import sample_light
from s2flib.synthfaces.streams import stream
from s2flib.synthfaces.strokes import Stroke, ink, resample, split_at_corners, thin, trace


@pytest.fixture(scope="module")
def sitter(scene):
    s = scene(1, male=False)
    return Person(s.identity, replace(s.look, glasses=None, hat=None, style="long", makeup=0.0)), s.shot


def test_three_hands_draw_three_drawings(sitter):
    person, shot = sitter
    picture = photograph(person, shot, 128, keep_buffers=True)
    drawings = {hand: line_drawing(picture.buffers, hand, seed=1) for hand in HANDS}
    assert set(drawings) == {"clean", "sketchy", "composite"}
    for drawing in drawings.values():
        assert drawing.shape == (128, 128) and drawing.dtype == np.uint8
        assert (drawing > 250).mean() > 0.4 and 0.02 < (drawing < 190).mean() < 0.45
    assert np.abs(drawings["clean"].astype(int) - drawings["sketchy"]).mean() > 3
    assert (drawings["composite"] < 160).mean() > (drawings["clean"] < 160).mean()
    assert (line_drawing(picture.buffers, "sketchy", seed=1) == drawings["sketchy"]).all()
    assert (line_drawing(picture.buffers, "sketchy", seed=2) != drawings["sketchy"]).any()
    # the eyes and the mouth are drawn: darker there than on the cheeks
    eyes, mouth, cheek = picture.landmarks[36:48], picture.landmarks[48:60], picture.landmarks[[2, 14]]
    cheek = 0.45 * cheek + 0.55 * picture.landmarks[30]

    def dark(points, reach=3):
        patches = [
            drawings["clean"][int(y) - reach : int(y) + reach + 1, int(x) - reach : int(x) + reach + 1]
            for x, y in points
        ]
        return np.mean([255 - p.mean() for p in patches])

    assert dark(eyes) > 40 and dark(mouth) > 22 and dark(cheek) < 0.7 * min(dark(eyes), dark(mouth))


def test_drawings_know_nothing_of_tone_hair_colour_and_light(sitter):
    """Not "hardly anything": the drawing of another skin tone, hair colour, light and backdrop is the same image."""
    person, shot = sitter
    light = sample_light(stream(3, "another"), "golden")
    other = Person(replace(person.identity, tone=6.0, iris_rgb=(0.1, 0.3, 0.6)), replace(person.look, dye="platinum"))
    other_shot = replace(shot, light=light, background=shot.background + 1, exposure=0.6, warmth=0.1)
    a, b = (photograph(p, s, 64, keep_buffers=True) for p, s in ((person, shot), (other, other_shot)))
    assert np.abs(a.rgb.astype(int) - b.rgb).mean() > 15
    assert (line_drawing(a.buffers, "clean", 4) == line_drawing(b.buffers, "clean", 4)).all()


def test_thinning_and_tracing_follow_a_thick_ring_and_a_cross():
    y, x = np.mgrid[0:64, 0:64]
    ring = np.abs(np.hypot(x - 32, y - 32) - 20) < 3
    skeleton = thin(ring)
    assert (skeleton & ~ring).sum() == 0 and 90 < skeleton.sum() < 140
    chains = trace(skeleton)
    assert np.abs(np.hypot(*(chains[0] - 32).T) - 20).max() < 2.5 and len(chains[0]) > 80
    cross = np.zeros((41, 41), bool)
    cross[20], cross[:, 20] = True, True
    lengths = [len(c) for c in trace(cross, shortest=3)]
    assert max(lengths) == 41 and sum(lengths) >= 79  # straight on through the crossing


def test_strokes_taper_and_corners_split():
    line = np.array([[8.0, 32.0], [56.0, 32.0]])
    paper = ink([Stroke(line, 4.0)], 64, taper=0.4)
    width = (1 - paper[:, [10, 32, 54]]).sum(0)
    assert width[1] == pytest.approx(4, abs=0.8) and width[0] < 0.75 * width[1] and width[2] < 0.75 * width[1]
    assert paper[:20].min() == 1 and ink([], 8).min() == 1
    along, zero = np.arange(20.0), np.zeros(20)
    corner = np.concatenate([np.stack([along, zero], 1), np.stack([zero + 19, along], 1)[1:]])
    parts = split_at_corners(corner, 3, 60)
    assert len(parts) == 2 and np.allclose(parts[0][-1], parts[1][0])
    assert np.allclose(np.diff(resample(line, 2.0), axis=0), [2, 0])
