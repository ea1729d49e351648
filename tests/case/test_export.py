"""A case's pictures and log in a folder, signed where c2pa-python is installed."""

import json
import sys
import types

import pytest
from case_files import change, members

from s2flib import case as cases
from s2flib.errors import DataError, S2FError


def test_export(case, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)  # not installed
    files, how = cases.export_case(case, tmp_path / "out")
    assert {p.name for p in files} == {
        "drawing.png", "faces_01.png", "faces_02.png", "faces_03.png", "edits_0002_01.png", "log.json", "case.txt",
    }  # fmt: skip
    assert (tmp_path / "out" / "faces_01.png").read_bytes() == members(case)["faces/01.png"] and "PNG text only" in how
    assert len(json.loads((tmp_path / "out" / "log.json").read_text())) == 4
    with pytest.raises(S2FError, match="exists already"):
        cases.export_case(case, tmp_path / "out")
    cases.export_case(case, tmp_path / "out", overwrite=True)
    change(case, faces_02=None)
    with pytest.raises(DataError, match="was changed"):
        cases.export_case(case, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def stand_in_c2pa(fail=False):
    """A module with the part of c2pa-python's interface that is used; the signature is a text behind the PNG."""

    class C2paSignerInfo:
        def __init__(self, alg, sign_cert, private_key, ta_url):
            assert alg == b"es256" and sign_cert == b"certificate" and private_key == b"key" and ta_url is None

    class Signer:
        @classmethod
        def from_info(cls, info):
            assert isinstance(info, C2paSignerInfo)
            return cls()

    class Builder:
        def __init__(self, manifest_json):
            self.manifest = json.loads(manifest_json)

        def sign(self, signer, format, source, dest):
            assert isinstance(signer, Signer) and format == "image/png"
            if fail:
                raise RuntimeError("the certificate is invalid")
            dest.write(source.read() + json.dumps(self.manifest).encode())

    module = types.ModuleType("c2pa")
    module.C2paSignerInfo, module.Signer, module.Builder = C2paSignerInfo, Signer, Builder
    return module


def test_export_signs_where_c2pa_is_installed(case, tmp_path, monkeypatch):
    from s2flib.case import export

    monkeypatch.setattr(export, "_certificate", lambda: (b"certificate", b"key"))
    monkeypatch.setitem(sys.modules, "c2pa", stand_in_c2pa())
    files, how = cases.export_case(case, tmp_path / "out")
    assert "no one trusts it" in how
    before = members(case)
    for path in files:
        signed = path.name.startswith(("faces", "edits"))
        if path.suffix == ".png":
            own = before[path.name.replace("_", "/", 1)]
            assert path.read_bytes().startswith(own) and (len(path.read_bytes()) > len(own)) is signed
    made = json.loads((tmp_path / "out" / "faces_01.png").read_bytes()[len(before["faces/01.png"]) :])
    assert made["title"] == "faces/01.png" and made["format"] == "image/png"
    assert made["assertions"][0]["data"]["actions"][0]["digitalSourceType"].endswith("trainedAlgorithmicMedia")
    monkeypatch.setitem(sys.modules, "c2pa", stand_in_c2pa(fail=True))
    with pytest.raises(S2FError, match="cannot be signed"):
        cases.export_case(case, tmp_path / "again")
    monkeypatch.setitem(sys.modules, "c2pa", types.ModuleType("c2pa"))  # another package of this name
    assert "PNG text only" in cases.export_case(case, tmp_path / "third")[1]
