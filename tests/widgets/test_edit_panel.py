"""The panel that edits a face by text, without a browser."""

import io
import json
import threading

import pytest
from editing_stand_in import close, face_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)

from s2flib.errors import ImageError
from s2flib.images import read_metadata, save_image

FAST = dict(steps=2)
WORDS = "make the hair blond"


def test_panel_applies_undoes_and_never_raises(face, tiny_pipe):
    from s2flib.widgets.edit_panel import EditPanel

    panel = EditPanel(face, pipe=tiny_pipe, **FAST)

    def click(button):
        button.click()
        assert panel.wait(600)

    panel.words.value = "brown hair"
    click(panel.go)
    assert panel.session.instructions == ["brown hair"] and panel.status.value == "brown hair"
    assert panel.bar.value == panel.bar.max == 4 and panel.words.value == ""
    assert panel.guidance.disabled and panel.suited.value
    panel.suited.value, panel.guidance.value, panel.words.value = False, 5.0, "blue eyes"
    click(panel.go)
    assert not panel.guidance.disabled and panel.session.history[-1].parameters["guidance"] == 5.0
    click(panel.back)
    panel.words.value = "<b>" + "hair " * 100
    click(panel.go)
    assert "make it shorter" in panel.status.value and panel.session.instructions == ["brown hair"]
    click(panel.back)
    panel.undo()
    assert "nothing to undo" in panel.status.value
    assert panel.static()[:4] == b"\x89PNG"
    assert panel._repr_mimebundle_()["image/png"] == panel.static()


def test_every_picture_of_the_panel_says_what_it_is(face, tiny_pipe, tmp_path):
    """Also what a browser saves of it: the mark, every instruction, and what the source said of itself."""
    from s2flib.widgets.edit_panel import EditPanel

    source = save_image(tmp_path / "face.png", face, {"sketch": "drawing.png", "seed": 3})
    panel = EditPanel(source, pipe=tiny_pipe, **FAST)
    for words in ("brown hair", "blue eyes"):
        panel.words.value = words
        panel.go.click()
        assert panel.wait(600)
    for data in (panel.static(), panel.view.after, panel.view.static()):
        about = read_metadata(io.BytesIO(data))
        assert about["synthetic"] == "true" and json.loads(about["history"]) == ["brown hair", "blue eyes"]
        assert json.loads(about["source_metadata"]) == {"sketch": "drawing.png", "seed": "3"}
    assert read_metadata(io.BytesIO(panel.view.before))["synthetic"] == "true"


def test_panel_makes_two_wishes_two_edits(face, tiny_pipe):
    from s2flib.widgets.edit_panel import EditPanel

    panel = EditPanel(face, pipe=tiny_pipe, **FAST)
    panel.words.value = "blue eyes and a goatee"
    panel.go.click()
    assert panel.wait(600) and panel.session.instructions == ["make the eyes blue", "add a goatee"]
    panel.words.value = "do not add glasses"
    panel.go.click()
    assert panel.wait(600) and len(panel.session.history) == 2 and "not wanted" in panel.status.value


def test_panel_cancels(face, tiny_pipe, monkeypatch):
    """While an edit is under way only Cancel can be clicked; cancelled, the picture and the words stay."""
    from s2flib.widgets.edit_panel import EditPanel

    panel, under_way, go_on = EditPanel(face, pipe=tiny_pipe, **FAST), threading.Event(), threading.Event()
    shown = panel._progress
    seen = []

    def progress(step, steps):
        seen.append(step)
        shown(step, steps)
        under_way.set()
        assert go_on.wait(600)

    monkeypatch.setattr(panel, "_progress", progress)
    panel.words.value = "brown hair"
    panel.go.click()
    assert under_way.wait(600) and not panel.wait(0.01)
    assert panel.go.disabled and panel.back.disabled and not panel.stop.disabled
    worker = panel._worker
    panel.apply()
    panel.undo()
    assert panel._worker is worker and panel.session.history == []  # neither does anything now
    panel.stop.click()
    go_on.set()
    assert panel.wait(600) and seen == [0]
    assert panel.session.history == [] and panel.words.value == "brown hair" and "cancelled" in panel.status.value
    assert not panel.go.disabled and not panel.back.disabled and panel.stop.disabled
    panel.go.click()  # the next one is not cancelled
    assert panel.wait(600) and panel.session.instructions == ["brown hair"]


@pytest.fixture
def panel(face, tiny_pipe):
    from s2flib.widgets.edit_panel import EditPanel

    panel = EditPanel(face, pipe=tiny_pipe, **FAST)
    panel.words.value = "brown hair"
    return panel


def is_ready(panel) -> bool:
    return not panel.go.disabled and not panel.back.disabled and panel.stop.disabled and panel._worker is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError, MemoryError])
def test_however_an_edit_ends_the_buttons_come_back(panel, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(panel.session, "chain", fail)
        panel.go.click()
        assert panel.wait(600)
    said = "interrupted" if not issubclass(error, Exception) else error.__name__
    assert said in panel.status.value and "edit" in panel.status.value and is_ready(panel)
    panel.go.click()
    assert panel.wait(600) and panel.status.value == "brown hair"


def test_a_thread_that_cannot_start_leaves_the_panel_alive(panel, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        panel.go.click()
    assert "can't start new thread" in panel.status.value and is_ready(panel) and panel.wait(1)
    panel.go.click()
    assert panel.wait(600) and panel.session.instructions == ["brown hair"]


def test_a_picture_that_cannot_be_shown_is_an_error_not_a_silence(panel, monkeypatch):
    def show(*_):
        raise ImageError("the image is 9.0 MB as PNG and the limit is 4 MB: make it smaller.")

    monkeypatch.setattr(panel.view, "show", show)
    panel.go.click()
    assert panel.wait(600) and panel.status.value.endswith("make it smaller.") and is_ready(panel)


def test_a_click_just_as_the_edit_ends_is_not_lost(panel, monkeypatch):
    """The button must not be enabled before the panel takes the next edit."""
    clicked = []

    def click(change):
        if change["new"] is False and not clicked:  # from here on a browser may click
            clicked.append(threading.Thread(target=panel.go.click))
            clicked[0].start()

    panel.go.observe(click, "disabled")
    panel.words.observe(lambda _: None, "value")
    panel.go.click()
    assert panel.wait(600)
    panel.words.value = "blue eyes"
    clicked[0].join(600)
    assert panel.wait(600) and is_ready(panel)
    assert len(panel.session.instructions) == 2 or "empty" in panel.status.value  # the second click was served


def test_words_typed_during_an_edit_stay(panel, monkeypatch):
    shown = panel._progress

    def progress(step, steps):
        panel.words.value = "blue eyes"
        shown(step, steps)

    monkeypatch.setattr(panel, "_progress", progress)
    panel.go.click()
    assert panel.wait(600) and panel.session.instructions == ["brown hair"] and panel.words.value == "blue eyes"


def test_the_first_of_two_wishes_is_shown_if_the_second_fails(panel, monkeypatch):
    real, calls = panel.session.apply, []

    def apply(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise ValueError("second")
        return real(*args, **options)

    monkeypatch.setattr(panel.session, "apply", apply)
    before = panel.view.after
    panel.words.value = "blue eyes and a goatee"
    panel.go.click()
    assert panel.wait(600) and "second" in panel.status.value and panel.view.after != before
    assert panel.status.value.startswith("make the eyes blue; ")


@pytest.mark.parametrize("words", ["x" * 10**6, "\ud800", "\0", "<script>" * 100, ""])
def test_any_words_are_answered_by_a_bounded_sentence(panel, words):
    panel.words.value = words
    panel.go.click()
    assert panel.wait(600) and is_ready(panel) and panel.session.history == []
    assert len(panel.status.value) < 1000 and "<" not in panel.status.value
    panel.status.value.encode("utf-8")
