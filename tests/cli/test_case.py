"""s2f case: the whole way of a case, and the exit codes 0, 1 and 2 of verify."""

import shutil
import zipfile

from case_files import case_fixture, case_weights_fixture, change, members, shifted, whole_case_fixture, write  # noqa: F401  (fixtures)
from commands import refused, s2f
from PIL import Image

from s2flib import weights
from s2flib.case import read_case
from s2flib.case.archive import locked


def test_from_drawing_to_export(case_weights, page, tmp_path, monkeypatch):
    monkeypatch.setenv("S2F_WEIGHTS", str(case_weights))
    file = tmp_path / "a.s2fcase"
    result = s2f("case", "new", page, "-o", file, "--n", 2, "--seed", 3, "--who", "the artist", "--debug")
    assert result.exit_code == 0 and "2 faces, all synthetic" in result.output, (result.output, result.exception)
    refused(s2f("case", "new", page, "-o", file), "never overwritten")
    result = s2f("case", "choose", file, 1, "--reason", "the chin", "--rejected", "2=too old")
    assert result.exit_code == 0 and "face 1 chosen" in result.output
    result = s2f("case", "edit", file, "make the hair blond", "--steps", 2)
    assert result.exit_code == 0 and "make the hair blond (seed 0)" in result.output, result.output
    result = s2f("case", "lineup", file, "--limit", 12)
    assert result.exit_code == 0 and "shuffled control" in result.output and "chance: rank-1" in result.output
    assert "similarity is not identification" in result.output
    result = s2f("case", "show", file)
    assert result.exit_code == 0 and "by the artist" in result.output
    assert "rejected faces/02.png: too old" in result.output
    result = s2f("case", "verify", file)
    assert result.exit_code == 0, result.output
    assert "3 pictures are equal to the byte" in result.output and "3 pictures and 1 line-up " in result.output
    head = read_case(file).head
    assert s2f("case", "verify", file, "--no-lineups", "--head", head).exit_code == 0
    result = s2f("case", "export", file, "-o", tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "faces_01.png").exists()
    refused(s2f("case", "export", file, "-o", tmp_path / "out"), "exists already", "--overwrite")
    assert s2f("case", "export", file, "-o", tmp_path / "out", "--overwrite").exit_code == 0


def different(result, *words):
    """Exit code 1, and the differences named on stderr."""
    assert result.exit_code == 1, (result.output, result.exception)
    assert "verified" not in result.stdout
    found = [line for line in result.stderr.splitlines() if line.startswith("DIFFERENT: ")]
    for word in words:
        assert any(word in line for line in found), result.stderr


def test_verify_finds_changes(case):
    change(case, faces_03=shifted(members(case)["faces/03.png"], 60))
    different(s2f("case", "verify", case, "--no-lineups"), "faces/03.png was changed", "not what its record makes")
    change(case, faces_03=None)
    different(s2f("case", "verify", case, "--no-lineups"), "faces/03.png is missing")
    change(case, log_0001=members(case)["log/0001.json"].replace(b"narrow", b"square"))
    result = s2f("case", "verify", case)
    different(result, "log/0001.json was changed")
    assert "nothing was made again" in result.output


def test_verify_with_other_weights(case, case_weights, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(case_weights, folder, symlinks=True)
    model = weights.load_psp("tiny")
    model.latent_avg += 0.01
    weights.save_psp(folder / "tiny-psp.safetensors", model, "tiny", overwrite=True)
    monkeypatch.setenv("S2F_WEIGHTS", str(folder))
    different(s2f("case", "verify", case, "--no-lineups"), "step 0 was made with another encoder")
    (folder / "tiny-psp.safetensors").unlink()
    refused(s2f("case", "verify", case), "tiny-psp.safetensors")


def test_no_case(case, tmp_path):
    for command in ("verify", "show"):
        refused(s2f("case", command, tmp_path / "no.s2fcase"), "no.s2fcase", "does not exist")
        refused(s2f("case", command, tmp_path), "is a folder")
    whole = case.read_bytes()
    case.write_bytes(whole[: len(whole) // 2])
    for arguments in (("verify",), ("show",), ("choose", 1, "--reason", "x"), ("edit", "add glasses"), ("lineup",)):
        refused(s2f("case", arguments[0], case, *arguments[1:]), case.name, "truncated")
    case.write_bytes(whole)
    write(case, members(case) | {"../evil.png": b"x"})
    refused(s2f("case", "verify", case), "evil.png", "do not trust it")
    assert not (tmp_path.parent / "evil.png").exists()
    case.write_bytes(whole)
    with zipfile.ZipFile(case, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("faces/09.png", bytes(100_000_000))
    refused(s2f("case", "verify", case), "100,000,000 bytes", "do not trust it")


def test_refusals(case, page, tmp_path):
    refused(s2f("case", "choose", case, 9, "--reason", "x"), "no face 9", "1 to 3")
    refused(s2f("case", "choose", case, 1, "--reason", " "), "needs a reason")
    refused(s2f("case", "choose", case, 1, "--reason", "x", "--rejected", "too old"), "2='too old'")
    refused(s2f("case", "lineup", case, "--gallery", tmp_path, "--limit", 3), "one gallery")
    refused(s2f("case", "new", page, "-o", tmp_path / "b.zip"), ".s2fcase")
    Image.new("RGB", (99, 99), "white").save(tmp_path / "blank.png")
    refused(s2f("case", "new", tmp_path / "blank.png", "-o", tmp_path / "b.s2fcase"), "blank.png", "no drawing")
    with locked(case):
        refused(s2f("case", "choose", case, 1, "--reason", "x"), "in use by another s2f process")
