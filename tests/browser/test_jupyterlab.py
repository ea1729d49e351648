"""The whole chain: JupyterLab, its kernel, the widgets' own front end, a mouse; strokes and clicks reach the kernel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget")
pytest.importorskip("jupyterlab")
pytest.importorskip("websocket")

from devtools import Browser, find_browser  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_browser() is None,
        reason="NO BROWSER: the pad is NOT tested in JupyterLab; install chromium or set CHROMIUM",
    ),
]

PAD = (
    "from s2flib.widgets import SketchPad\n"
    "pad = SketchPad(256)\n"
    "def write(p):\n"
    "    import json\n"
    "    from pathlib import Path\n"
    "    page = p.to_array()\n"
    "    out = {'strokes': p.strokes, 'min': int(page.min()), 'size': page.shape[0],\n"
    "           'background': len(p.background), 'message': p.message}\n"
    "    Path('seen.part').write_text(json.dumps(out)); Path('seen.part').rename('seen.json')\n"
    "pad.on_draw(write)\n"
    "pad"
)
PANEL = (
    "from s2flib.datasets import open_dataset\n"
    "from s2flib.widgets import EditPanel\n"
    "panel = EditPanel(open_dataset('tiny', 'test')[0]['photo'], steps=500)\n"
    "panel.words.value = 'brown hair'\n"
    "panel"
)

LINEUP = (
    "import numpy as np\n"
    "from s2flib.widgets import LineupPanel, Round\n"
    "photos = [np.full((64, 64, 3), 40 * i + 20, np.uint8) for i in range(5)]\n"
    "LineupPanel([Round(photos[:1], photos[1:], 2)])"
)
BOARD = (
    "from s2flib import weights\nfrom s2flib.widgets import DrawingBoard\nDrawingBoard(weights.load_psp('tiny'), n=2)"
)


@pytest.fixture
def lab(tmp_path, request):
    """The address of a notebook, in a JupyterLab of its own, whose one cell is the fixture's parameter."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {
                "cell_type": "code",
                "id": "cell",
                "metadata": {},
                "source": request.param,
                "outputs": [],
                "execution_count": None,
            }
        ],
    }
    (tmp_path / "one.ipynb").write_text(json.dumps(notebook))
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {
        "PYTHONPATH": str(ROOT),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=s2f",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    with open(tmp_path / "lab.log", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert server.poll() is None, (tmp_path / "lab.log").read_text()[-2000:]
                try:
                    urllib.request.urlopen(f"{address}/api/status?token=s2f", timeout=5)
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"{address}/lab/tree/one.ipynb?reset&token=s2f"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def result(folder: Path, enough, seconds: float = 60) -> dict:
    for _ in range(int(seconds * 10)):
        path = folder / "seen.json"
        if path.exists() and enough(found := json.loads(path.read_text())):
            return found
        time.sleep(0.1)
    raise TimeoutError("the drawing did not reach the kernel")


@pytest.fixture
def page(lab, tmp_path):
    """A browser in which that notebook has begun to run."""
    folder = tmp_path / "chromium"
    folder.mkdir()
    with Browser(folder) as browser:
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # JupyterLab's current tab follows focus
        browser.call("Page.navigate", url=lab)
        browser.wait("!!(window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell'))", 240)
        browser.run(
            "window.panel = [...jupyterapp.shell.widgets('main')].find((w) => w.sessionContext);"
            "jupyterapp.shell.activateById(panel.id); panel.sessionContext.ready.then(() => true)"
        )
        browser.wait("jupyterapp.shell.currentWidget === panel")
        browser.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
        yield browser


def paper(page) -> list[float]:
    """Left, top and width of the pad's canvas in the window, once it is there."""
    page.wait("!!document.querySelector('.s2f canvas.paper')", 240)
    page.run("document.querySelector('.s2f canvas.paper').scrollIntoView({block: 'center'})")
    time.sleep(1)
    return page.run(
        "(({left, top, width}) => [left, top, width])(document.querySelector('.paper').getBoundingClientRect())"
    )


@pytest.mark.parametrize("lab", [PAD], indirect=True, ids=["pad"])
def test_a_line_drawn_in_jupyterlab_reaches_the_kernel(page, tmp_path):
    left, top, width = paper(page)
    scale = width / 256
    line = [(40 + 4 * i, 128 + 40 * np.sin(i / 6)) for i in range(40)]
    page.drag([(left + x * scale, top + y * scale) for x, y in line])
    found = result(tmp_path, lambda f: len(f["strokes"]) == 1)
    got = np.array(found["strokes"][0]["p"]).reshape(-1, 3)[:, :2]
    assert np.abs(got - line).max() < 2 and found["min"] < 128 and found["size"] == 256

    page.key("z", modifiers=2)  # undo by keyboard: the pad's, not the notebook's
    assert result(tmp_path, lambda f: f["strokes"] == [])["min"] == 255
    page.screenshot(tmp_path / "lab.png")
    assert page.run("document.querySelectorAll('.jp-CodeCell').length") == 1


@pytest.mark.parametrize("lab", [LINEUP], indirect=True, ids=["line-up"])
def test_the_answer_of_a_line_up_comes_after_the_click(page, tmp_path):
    third = "[...document.querySelectorAll('.jupyter-button')].find((b) => b.textContent.trim() === '3')"
    page.wait(f"!!{third}", 240)
    assert not page.run("document.querySelector('.jp-OutputArea').textContent.includes('right')")
    page.screenshot(tmp_path / "hidden.png")
    page.run(f"{third}.click()")
    page.wait("document.querySelector('.jp-OutputArea').textContent.includes('right: it is photo 3; 1 of 1 right')", 60)
    page.screenshot(tmp_path / "answered.png")


@pytest.mark.parametrize("lab", [BOARD], indirect=True, ids=["board"])
def test_a_stroke_in_jupyterlab_makes_a_face(page, tmp_path):
    left, top, width = paper(page)
    page.drag([(left + width * (0.3 + 0.01 * i), top + width * (0.5 + 0.2 * np.sin(i / 6))) for i in range(40)])
    page.wait("document.querySelector('.jp-OutputArea').textContent.includes('2 faces fit')", 60)
    shown = "[...document.querySelectorAll('.jp-OutputArea img')].filter((i) => i.naturalWidth === 128).length"
    page.wait(f"{shown} === 2", 20)
    page.screenshot(tmp_path / "board.png")


@pytest.mark.parametrize("lab", [PANEL], indirect=True, ids=["panel"])
def test_an_edit_is_cancelled_in_jupyterlab(page, tmp_path):
    """500 steps take long enough to click Cancel; a kernel busy with the callback would hear it after the last."""

    def button(name: str) -> str:
        return f"[...document.querySelectorAll('.jupyter-button')].find((b) => b.textContent.trim() === '{name}')"

    page.wait(f"!!{button('Cancel')}", 240)
    assert page.run(f"{button('Cancel')}.disabled")
    page.run(f"{button('Apply')}.click()")
    page.wait(f"!{button('Cancel')}.disabled && {button('Apply')}.disabled", 60)
    page.screenshot(tmp_path / "editing.png")
    page.run(f"{button('Cancel')}.click()")
    said = "nothing edited yet; the edit was cancelled"
    page.wait(f"document.querySelector('.jp-OutputArea').textContent.includes({said!r})", 60)
    page.wait(f"{button('Cancel')}.disabled && !{button('Apply')}.disabled")
    page.screenshot(tmp_path / "cancelled.png")
