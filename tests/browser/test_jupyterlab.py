"""The whole chain once: JupyterLab, its kernel, anywidget's own front end, a mouse; the strokes reach the kernel."""

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
pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    find_browser() is None, reason="NO BROWSER: the pad is NOT tested in JupyterLab; install chromium or set CHROMIUM")]

CELL = ("from s2flib.widgets import SketchPad\n"
        "pad = SketchPad(256)\n"
        "def write(p):\n"
        "    import json\n"
        "    from pathlib import Path\n"
        "    page = p.to_array()\n"
        "    out = {'strokes': p.strokes, 'min': int(page.min()), 'size': page.shape[0],\n"
        "           'background': len(p.background), 'message': p.message}\n"
        "    Path('seen.part').write_text(json.dumps(out)); Path('seen.part').rename('seen.json')\n"
        "pad.on_draw(write)\n"
        "pad")


@pytest.fixture
def lab(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {
        "name": "python3", "display_name": "Python 3", "language": "python"}}, "cells": [
        {"cell_type": "code", "id": "pad", "metadata": {}, "source": CELL, "outputs": [], "execution_count": None}]}
    (tmp_path / "pad.ipynb").write_text(json.dumps(notebook))
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"PYTHONPATH": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
               "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--IdentityProvider.token=s2f",
               f"--ServerApp.root_dir={tmp_path}"]
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
            yield f"{address}/lab/tree/pad.ipynb?reset&token=s2f"
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


def test_a_line_drawn_in_jupyterlab_reaches_the_kernel(lab, tmp_path):
    folder = tmp_path / "chromium"
    folder.mkdir()
    with Browser(folder) as browser:
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)    # JupyterLab's current tab follows focus
        browser.call("Page.navigate", url=lab)
        browser.wait("!!(window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell'))", 240)
        browser.run("window.panel = [...jupyterapp.shell.widgets('main')].find((w) => w.sessionContext);"
                    "jupyterapp.shell.activateById(panel.id); panel.sessionContext.ready.then(() => true)")
        browser.wait("jupyterapp.shell.currentWidget === panel")
        browser.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
        browser.wait("!!document.querySelector('.s2f canvas.paper')", 240)
        browser.run("document.querySelector('.s2f canvas.paper').scrollIntoView({block: 'center'})")
        time.sleep(1)
        left, top, width = browser.run("(({left, top, width}) => [left, top, width])(document.querySelector('.paper')"
                                       ".getBoundingClientRect())")
        scale = width / 256
        line = [(40 + 4 * i, 128 + 40 * np.sin(i / 6)) for i in range(40)]
        browser.drag([(left + x * scale, top + y * scale) for x, y in line])
        found = result(tmp_path, lambda f: len(f["strokes"]) == 1)
        got = np.array(found["strokes"][0]["p"]).reshape(-1, 3)[:, :2]
        assert np.abs(got - line).max() < 2 and found["min"] < 128 and found["size"] == 256

        browser.key("z", modifiers=2)                       # undo by keyboard: the pad's, not the notebook's
        assert result(tmp_path, lambda f: f["strokes"] == [])["min"] == 255
        browser.screenshot(tmp_path / "lab.png")
        assert browser.run("document.querySelectorAll('.jp-CodeCell').length") == 1
