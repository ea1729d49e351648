"""The panel that edits a face by text, without a browser."""

import threading

from editing_stand_in import close, face_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)

FAST = dict(steps=2)
WORDS = "make the hair blond"


def test_panel_applies_undoes_and_never_raises(face, tiny_pipe):
    from s2flib.widgets.edit_panel import EditPanel

    panel = EditPanel(face, pipe=tiny_pipe, **FAST)

    def click(button):
        button.click()
        assert panel.wait(60)

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


def test_panel_makes_two_wishes_two_edits(face, tiny_pipe):
    from s2flib.widgets.edit_panel import EditPanel

    panel = EditPanel(face, pipe=tiny_pipe, **FAST)
    panel.words.value = "blue eyes and a goatee"
    panel.go.click()
    assert panel.wait(60) and panel.session.instructions == ["make the eyes blue", "add a goatee"]
    panel.words.value = "do not add glasses"
    panel.go.click()
    assert panel.wait(60) and len(panel.session.history) == 2 and "not wanted" in panel.status.value


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
        assert go_on.wait(60)

    monkeypatch.setattr(panel, "_progress", progress)
    panel.words.value = "brown hair"
    panel.go.click()
    assert under_way.wait(60) and not panel.wait(0.01)
    assert panel.go.disabled and panel.back.disabled and not panel.stop.disabled
    worker = panel._worker
    panel.apply()
    panel.undo()
    assert panel._worker is worker and panel.session.history == []  # neither does anything now
    panel.stop.click()
    go_on.set()
    assert panel.wait(60) and seen == [0]
    assert panel.session.history == [] and panel.words.value == "brown hair" and "cancelled" in panel.status.value
    assert not panel.go.disabled and not panel.back.disabled and panel.stop.disabled
    panel.go.click()  # the next one is not cancelled
    assert panel.wait(60) and panel.session.instructions == ["brown hair"]
