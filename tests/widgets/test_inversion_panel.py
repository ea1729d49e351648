"""The inversion panel: every step is shown, cancel stops, an error is a sentence; and sliders along directions."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from s2flib.errors import S2FError
from s2flib.inversion.directions import Direction
from s2flib.inversion.protocol import Inversion, Step
from s2flib.stylegan2 import Generator
from s2flib.widgets import InversionPanel, direction_sliders

LONG = 600  # seconds; a deadlock, not a slow machine


class Fake:
    """Three steps that turn the picture from black to the photo."""

    name = "psp"

    def __init__(self, between=lambda step: None):
        self.between, self.calls = between, []

    def invert(self, photos, watch=None):
        self.calls.append(photos)
        for k in range(3):
            share = k / 2
            watch(Step(k, 0.5 * k, torch.tensor([1.0 - share]), photos * share - (1 - share)))
            self.between(k)
        return Inversion(None, torch.zeros(1, 2, 2), photos, (), 1.0)


@pytest.fixture
def photos():
    return torch.stack([torch.full((3, 16, 16), v) for v in (0.6, -0.2)])


def column(panel, k):
    """The grey level in the middle of the panel's k-th picture; None if there is none."""
    picture = np.asarray(Image.open(io.BytesIO(panel.image.value)).convert("RGB"))
    x = 6 + k * (192 + 6) + 96
    return int(picture[6 + 20 + 96, x, 0])


def test_the_trace_is_shown_and_the_result_kept(photos):
    fake = Fake()
    panel = InversionPanel(photos, {"psp": fake, "e4e": Fake})
    assert column(panel, 0) == round((0.6 + 1) * 127.5) and column(panel, 1) == 255, "the photo alone"
    panel.photo.value = 1
    panel.go.click()
    assert panel.wait(LONG)
    assert torch.equal(fake.calls[0], photos[1:2]) and panel.inversion is not None and len(panel.steps) == 3
    grey = round((-0.2 + 1) * 127.5)
    assert [column(panel, k) for k in range(3)] == [grey, 0, grey], "photo, start, end"
    assert panel.status.value == "pSp: step 2, 1.0 s, MSE 0.0000"
    assert not panel.go.disabled and panel.stop.disabled
    assert Image.open(io.BytesIO(panel.static())).text["synthetic"] == "true"


def test_a_method_is_loaded_at_its_first_use_and_once(photos):
    loaded = []

    def load():
        loaded.append(Fake())
        return loaded[-1]

    panel = InversionPanel(photos, {"psp": Fake(), "e4e": load})
    assert not loaded
    panel.method.value = "e4e"
    for _ in range(2):
        panel.run()
        assert panel.wait(LONG)
    assert len(loaded) == 1 and len(loaded[0].calls) == 2 and panel.status.value.startswith("e4e: step 2")


def test_cancel_stops_at_the_next_step(photos):
    under_way, go_on = threading.Event(), threading.Event()

    def between(step):
        under_way.set()
        assert go_on.wait(LONG)

    panel = InversionPanel(photos, {"psp": Fake(between)})
    panel.run()
    assert under_way.wait(LONG) and panel.go.disabled and panel.photo.disabled and not panel.stop.disabled
    panel.run()  # does nothing while one is running
    panel.stop.click()
    go_on.set()
    assert panel.wait(LONG) and len(panel.steps) == 1 and panel.inversion is None
    assert "cancelled" in panel.status.value and not panel.go.disabled and not panel.photo.disabled


def test_a_method_that_fails_is_a_sentence(photos):
    def load():
        raise S2FError("there is no file of e4e: train it.")

    panel = InversionPanel(photos, {"e4e": load})
    panel.run()
    assert panel.wait(LONG) and panel.status.value == "there is no file of e4e: train it." and not panel.go.disabled
    with pytest.raises(S2FError, match="at least one photo"):
        InversionPanel(photos[:0], {"e4e": load})


@pytest.fixture
def inversion():
    torch.manual_seed(0)
    g = Generator(16, 16, 2, channel_base=128, channel_max=16).eval().requires_grad_(False)
    w = g.expand(g.random_codes(2, 1))
    own = tuple({"to_rgbs.1.bias": g.to_rgbs[1].bias + 0.2 * (k + 1)} for k in range(2))
    return Inversion(g, w, g.synthesis(w), (), 0.0, own)


def test_sliders_move_the_first_photos_code_by_its_own_generator(inversion):
    unit = torch.eye(16)
    found = [Direction("long_hair", unit[0], 2.0), Direction("beard", unit[3], 0.5, rows=(1, 2))]
    sliders = direction_sliders(inversion, found)
    assert [c["label"] for c in sliders.controls] == ["long hair", "beard"]

    def expected(a, b):
        w = inversion.w_plus[:1].clone()
        w[:, :, 0] += 2 * a
        w[:, 1:3, 3] += 0.5 * b
        one = Inversion(inversion.generator, w, w, (), 0.0, inversion.weights[:1])
        return ((one.generate()[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()

    np.testing.assert_allclose(sliders.to_array().astype(float), expected(0, 0), atol=1)
    assert sliders.set(direction_0=1.5, direction_1=-3)
    np.testing.assert_allclose(sliders.to_array().astype(float), expected(1.5, -3), atol=1)
    plain = direction_sliders(Inversion(inversion.generator, inversion.w_plus, inversion.w_plus, (), 0.0), found)
    assert np.abs(plain.to_array().astype(int) - expected(0, 0)).max() > 3, "without weights: the shared generator"
    with pytest.raises(S2FError, match="same name"):
        direction_sliders(inversion, [found[0], found[0]])
