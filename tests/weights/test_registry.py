"""Published files: listed, fetched once, pinned to their hash."""

import re
import warnings
from urllib.parse import urlparse

import pytest

from s2flib import weights
from s2flib.errors import WeightsError
from s2flib.files import cache_dir
from s2flib.weights import registry


def test_registry_is_well_formed():
    files = [e.file for e in weights.REGISTRY.values()]
    assert len(set(files)) == len(files)
    for e in weights.REGISTRY.values():
        assert e.what and e.licence and e.urls
        assert all(urlparse(u).scheme == "https" for u in e.urls)
        assert e.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", e.sha256)
        if m := re.search(r"-([0-9a-f]{8})\.pth$", e.file):  # torchvision's names begin the hash
            assert e.sha256.startswith(m[1])


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Puts a file of known bytes behind the name "thing", "downloaded" by copying; counts the downloads."""
    monkeypatch.setenv("S2F_CACHE", str(tmp_path / "cache"))
    calls = []

    def install(sha256):
        monkeypatch.setitem(
            weights.REGISTRY,
            "thing",
            registry.Published("thing.pt", "a thing", "CC0", ("https://example.org/thing",), sha256),
        )

    def fake_download(urls, path, sha256):
        calls.append(urls)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PK\x03\x04contents")
        return path

    monkeypatch.setattr(registry, "download", fake_download)
    return install, calls


CONTENTS = "855f9d4713d2cf0d305ee51e268851f063603fd3efb8efa425235671ffdf16f4"


def test_fetch_pinned(entry, capsys):
    install, calls = entry
    install(CONTENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = weights.fetch("thing")
        assert weights.fetch("thing") == path
    assert "CC0" in capsys.readouterr().err  # the licence is shown before the download
    assert len(calls) == 1 and path.read_bytes() == b"PK\x03\x04contents"
    assert [p.name for p in path.parent.iterdir()] == ["thing.pt"]
    path.write_bytes(b"PK\x03\x04Contents")
    with pytest.raises(WeightsError, match="s2f fetch thing"):
        weights.fetch("thing")


def test_fetch_pins_on_first_use(entry):
    install, calls = entry
    install(None)
    with pytest.warns(UserWarning, match=f"PINNED to {CONTENTS}"):
        path = weights.fetch("thing")
    assert (path.parent / "thing.pt.sha256").read_text() == f"{CONTENTS}  thing.pt\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights.fetch("thing")
    path.write_bytes(b"PK\x03\x04something else")
    with pytest.raises(WeightsError, match="pinned"):
        weights.fetch("thing")
    assert len(calls) == 1


def test_fetch_takes_a_file_put_there_by_hand(entry):
    install, calls = entry
    install(CONTENTS)
    cache_dir().mkdir()
    (cache_dir() / "thing.pt").write_bytes(b"PK\x03\x04contents")
    assert weights.fetch("thing").read_bytes() == b"PK\x03\x04contents" and not calls


def test_fetch_unknown():
    with pytest.raises(WeightsError, match="psp-sketch"):
        weights.fetch("stylegan9")


@pytest.mark.parametrize("left", [b"", b"\n", b"half a ha", b"\xff" * 64])
def test_a_damaged_pin_is_one_sentence(entry, left):
    install, _ = entry
    install(None)
    with pytest.warns(UserWarning, match="PINNED"):
        path = weights.fetch("thing")
    path.with_name("thing.pt.sha256").write_bytes(left)
    with pytest.raises(WeightsError, match=r"thing\.pt\.sha256 is damaged"):
        weights.fetch("thing")
