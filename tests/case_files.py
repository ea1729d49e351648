"""A small case of every step, made once, and ways to damage copies of it."""

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
from commands import REPO
from PIL import Image
from stand_in import drawing

from s2flib.case import choose_face, edit_face, new_case, read_case, run_lineup
from s2flib.case.archive import entry_hash, member_of
from s2flib.images import png_info, read_metadata


@pytest.fixture(scope="session", name="case_weights")
def case_weights_fixture(stand_in_data):
    """The stand-in's untrained encoder beside the shipped judge and edit pipeline."""
    for name in ("dlib-resnet.safetensors", "tiny-instruct-pix2pix"):
        if not (stand_in_data / "weights" / name).exists():
            (stand_in_data / "weights" / name).symlink_to(REPO / "data" / "weights" / name)
    return stand_in_data / "weights"


@pytest.fixture(scope="session", name="_whole_case")
def whole_case_fixture(case_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    Image.fromarray(drawing()).save(folder / "page.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S2F_WEIGHTS", str(case_weights))
        path = folder / "a.s2fcase"
        new_case(folder / "page.png", path, n=3, seed=5, who="the artist")
        choose_face(path, 2, "the narrow chin", {1: "too old"})
        edit_face(path, "make the hair blond", seed=1, steps=2)
        run_lineup(path, limit=24)
    return path


@pytest.fixture(name="case")
def case_fixture(_whole_case, case_weights, tmp_path, monkeypatch):
    """A fresh copy, free to be damaged, of a case with one step of each kind."""
    monkeypatch.setenv("S2F_WEIGHTS", str(case_weights))
    return shutil.copy(_whole_case, tmp_path / "a.s2fcase")


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, contents) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, blob in contents.items():
            archive.writestr(name, blob)


def change(path, **changed) -> None:
    """Replace members (``faces_01="…"`` for faces/01.png, None: remove) without touching the log."""
    contents = members(path)
    for key, blob in changed.items():
        (name,) = [n for n in contents if n.replace("/", "_").split(".")[0] == key]
        contents[name] = blob
    write(path, {name: blob for name, blob in contents.items() if blob is not None})


def forge(path, edit) -> None:
    """What a careful forger does: change entries' data or pictures, and hash the whole chain anew.

    edit(entries' data in order, members) changes both in place.
    """
    case = read_case(path)
    blobs, data = dict(case.members), [json.loads(json.dumps(entry.data)) for entry in case.entries]
    edit(data, blobs)
    previous, contents = "0" * 64, {}
    for entry, new in zip(case.entries, data, strict=True):
        digests = {name: hashlib.sha256(blobs[name]).hexdigest() for name in entry.members}
        entry = replace(entry, data=new, members=digests, previous=previous, hash="")
        entry = replace(entry, hash=entry_hash(entry))
        contents[member_of(entry.index)] = json.dumps(asdict(entry)).encode()
        previous = entry.hash
    write(path, contents | blobs)


def shifted(blob: bytes, grey: int, everywhere: bool = False) -> bytes:
    """A PNG with one pixel, or all of them, changed by so many grey levels; its text is kept."""
    array = np.asarray(Image.open(io.BytesIO(blob))).astype(int)
    part = np.s_[:] if everywhere else np.s_[40, 40]
    array[part] = np.where(array[part] > 127, array[part] - grey, array[part] + grey)
    out = io.BytesIO()
    text = read_metadata(io.BytesIO(blob))
    Image.fromarray(array.astype(np.uint8)).save(out, "PNG", pnginfo=png_info(text))
    return out.getvalue()
