"""Set-up takes PyTorch's CPU wheels exactly on a Linux machine without an NVIDIA device that can reach them."""

import importlib.util
import io
import subprocess
import sys

import pytest
from commands import REPO

spec = importlib.util.spec_from_file_location("torch_index", REPO / "scripts" / "torch_index.py")
torch_index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_index)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A Linux machine without a GPU, with a reachable index."""
    monkeypatch.setattr(torch_index.platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch_index.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch_index, "DEVICES", (str(tmp_path / "nvidia0"),))
    answer = io.BytesIO(b"")
    answer.status = 200
    monkeypatch.setattr(torch_index.urllib.request, "urlopen", lambda url, timeout: answer)
    return tmp_path


def test_without_a_gpu_the_cpu_wheels(machine):
    assert torch_index.options() == "--extra-index-url https://download.pytorch.org/whl/cpu"


def test_with_a_device_or_its_tool_the_default(machine, monkeypatch):
    (machine / "nvidia0").touch()
    assert torch_index.options() == ""
    (machine / "nvidia0").unlink()
    monkeypatch.setattr(torch_index.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert torch_index.options() == ""


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_have_no_cuda_wheels(machine, monkeypatch, system):
    monkeypatch.setattr(torch_index.platform, "system", lambda: system)
    assert torch_index.options() == ""


def test_an_index_that_cannot_be_reached_is_not_named(machine, monkeypatch):
    def refuse(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr(torch_index.urllib.request, "urlopen", refuse)
    assert torch_index.options() == ""


def test_make_asks_it_unless_told_otherwise(tmp_path):
    def plan(*arguments):
        command = ["make", "-n", "-B", "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}", *arguments]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60).stdout

    assert "scripts/torch_index.py" in plan()
    told = plan("PIP_ARGS=--index-url https://example.org")
    assert "scripts/torch_index.py" not in told and "--index-url https://example.org" in told
