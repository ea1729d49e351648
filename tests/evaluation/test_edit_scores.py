"""Measures of edits: the judge's heads, success, colours, gains, the grid's choice, sketch → face → edit."""

import json

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from s2flib.cli import app as cli
from s2flib.datasets.edit_pairs import EditPairs
from s2flib.errors import DataError, S2FError
from s2flib.evaluation import Judges, edit_guidance
from s2flib.evaluation import edit_report as report
from s2flib.evaluation.edit_scores import (
    EditScores,
    measure,
    nearer_colour,
    same_person_level,
    strictly,
    template_of,
    verdict,
    visible,
)
from s2flib.images import read_metadata
from s2flib.instruct_pix2pix import keep_detail
from s2flib.judges.edit_judge import EditJudge
from s2flib.synthfaces import phrases
from s2flib.synthfaces.edits import Edit


def do_nothing(pictures, instructions):
    """The control: every picture as it was."""
    return [p.copy() for p in pictures]


class Difference(torch.nn.Module):
    """Stands for both nets that measure: mean absolute difference, and a similarity from it."""

    label = "difference"

    def forward(self, x, y):
        return (x - y).abs().mean((1, 2, 3))

    def similarity(self, x, y):
        return 1 - self(x, y)

    def embed(self, x):
        return torch.nn.functional.normalize(x.flatten(1), dim=1)


JUDGES = Judges(Difference(), Difference())


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return EditJudge().eval()


@pytest.fixture(scope="module")
def pairs(pairs_folder):
    return EditPairs(pairs_folder, "train", size=64)


def oracle(pairs):
    truth_of = {pairs[i]["before"].tobytes(): pairs[i]["after"] for i in range(len(pairs))}
    return lambda pictures, texts: [truth_of[p.tobytes()] for p in pictures]


# --- success ----------------------------------------------------------------------------------------------------


def reads(head, *logits):
    return {head: torch.tensor(logits).log_softmax(0) if len(logits) > 1 else torch.tensor(logits[0])}


def test_success_is_the_new_value_before_the_old_one():
    item = {
        "before": np.zeros((8, 8, 3), np.uint8),
        "after": np.full((8, 8, 3), 200, np.uint8),
        "mask": np.ones((8, 8), bool),
    }

    def found(before, after, made, request=None):
        return verdict(request or Edit("hat", "cap"), item, item["before"], before, after, made, 1.0)

    none, cap = reads("hat", 5.0, 0.0, 0.0, 0.0), reads("hat", 0.0, 0.0, 5.0, 0.0)
    assert found(none, cap, cap) and not found(none, cap, none)
    beanie = reads("hat", 0.0, 5.0, 2.0, 0.0)  # a hat, though another one: better than none, not strict
    assert found(none, cap, beanie) and not strictly(Edit("hat", "cap"), beanie, True)
    assert strictly(Edit("hat", "cap"), cap, True)
    older = Edit("age", "60")
    assert found(reads("age", 40.0), reads("age", 60.0), reads("age", 55.0), older)
    assert not found(reads("age", 40.0), reads("age", 60.0), reads("age", 45.0), older)


def test_a_colour_must_also_be_nearer_in_the_picture():
    before, after = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    after[:4, :4] = (200, 160, 80)
    mask = np.ones((8, 8), bool)
    half, most = before.copy(), before.copy()
    half[:4, :4], most[:4, :4] = (30, 24, 12), (180, 140, 70)
    assert nearer_colour(most, before, after, mask) and not nearer_colour(half, before, after, mask)
    assert visible(before, after).sum() == 16 and not nearer_colour(most, before, before, mask)
    item = {"before": before, "after": after, "mask": mask}
    blond, black = reads("hair_color", *(5.0 * (k == 4) for k in range(12))), reads("hair_color", 5.0, *[0.0] * 11)
    request = Edit("hair_color", "blond")
    assert verdict(request, item, most, black, blond, blond, 1.0)
    assert not verdict(request, item, half, black, blond, blond, 1.0)


def test_oracle_and_doing_nothing_stand_at_the_ends(pairs, judge):
    best, none = measure(oracle(pairs), pairs, judge, JUDGES), measure(do_nothing, pairs, judge, JUDGES)
    assert best.lpips_gain().value == 1 and none.lpips_gain().value == 0
    assert best.overall("success").value == best.overall("ceiling").value >= none.overall("success").value
    assert none.overall("success").value == none.overall("floor").value
    assert best.overall("outside").value == 0 and none.overall("similarity").value == 1
    assert best.of_kind("background").value == 1 and none.of_kind("background").value == 0
    assert best.overall().n == len(pairs) and best.skipped == 0
    half = measure(
        lambda p, t: [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(p, oracle(pairs)(p, t), strict=True)],
        pairs,
        judge,
        JUDGES,
    )
    gain = half.lpips_gain()
    assert gain.low <= gain.value <= gain.high and gain.value == pytest.approx(0.5, abs=0.02)


def test_person_is_counted_only_where_it_should_stay(pairs, judge):
    scores = measure(do_nothing, pairs, judge, JUDGES)
    kept = scores.similarity_kept()
    assert kept.n == sum(row.kind != "age" for row in pairs.rows)
    with pytest.raises(DataError, match="no beard edit"):
        scores.of_kind("beard")


def test_invisible_edits_are_left_out(pairs, judge, monkeypatch):
    real = EditPairs.__getitem__

    def same(self, i):
        item = real(self, i)
        return item | ({"after": item["before"]} if i == 0 else {})

    monkeypatch.setattr(EditPairs, "__getitem__", same)
    scores = measure(do_nothing, pairs, judge, JUDGES)
    assert scores.skipped == 1 and scores.overall().n == len(pairs) - 1


def test_an_editor_that_answers_wrongly_is_refused(pairs, judge):
    with pytest.raises(S2FError, match="same shape"):
        measure(lambda p, t: [x[:10] for x in p], pairs, judge, JUDGES)


def test_phrasings_are_found_again():
    for kind in phrases.KINDS:
        for k, template in enumerate(phrases.templates(kind, held_out=True)):
            said = phrases.instruction(kind, "light brown", k, held_out=True)
            assert template_of(kind, said) == template


# --- reports ----------------------------------------------------------------------------------------------------


def test_report_is_written_whole(pairs, judge, tmp_path):
    scores = measure(oracle(pairs), pairs, judge, JUDGES)
    paths = report.save_report(tmp_path, scores)
    text = paths[0].read_text().splitlines()
    assert text[0].startswith("kind,success,success_low") and text[-1].startswith("overall")
    assert len(text) == 2 + len(scores.kinds())
    assert paths[2].stat().st_size > 10_000
    rows = report.by_phrasing(scores)
    assert sum(r["n"] for r in rows) == len(pairs) and rows[0]["success"] <= rows[-1]["success"]


@pytest.mark.parametrize(
    "gain, words",
    [
        ((0.3, 0.25, 0.35), "30 % [25, 35] below"),
        ((-0.2, -0.26, -0.14), "20 % [14, 26] above"),
        ((0.02, -0.01, 0.05), "2 % [-1, 5] below"),
        ((-0.02, -0.05, 0.01), "2 % [-1, 5] above"),
    ],
)
def test_a_gain_says_on_which_side_of_doing_nothing_it_lies(gain, words):
    from s2flib.evaluation.intervals import Interval

    assert report.gain_in_words(Interval(*gain, 10, 10)) == f"{words} doing nothing"


def test_guidances_are_chosen_by_success_then_truth():
    def point(s, i, success, gain):
        return edit_guidance.GridPoint(s, i, success, gain, 0.9, 1.0)

    points = [point(1.5, 1, 0.70, 0.6), point(3, 1, 0.89, 0.4), point(5, 1, 0.90, 0.2), point(3, 1.5, 0.885, 0.5)]
    assert edit_guidance.choose(points) == points[3]
    assert edit_guidance.grid_figure(points) is not None


def test_suited_guidance_is_chosen_from_the_pairs_of_the_grid():
    """Ten pairs: two that change little succeed at 7 only, the others always, and pay for 7 with their distance."""
    few, people = np.arange(10) < 2, np.arange(10)

    def point(scale, image=1.0):
        pairs = {
            "kind": np.array(["hat"] * 9 + ["age"]),
            "identity": people,
            "moved": np.where(few, 0.5, 9.0) * scale,
            "lpips": np.where(few, 0.001, 0.01 * scale),
            "lpips_nothing": np.full(10, 0.1),
            "similarity": np.where(people == 9, 0.0, 1 - scale / 10),
            "outside": np.full(10, scale),
        }
        changes = {
            "identity": np.repeat(people, 2),
            "success": np.repeat(~few | (scale == 7), 2).astype(float),
            "kind": np.repeat(pairs["kind"], 2),
        }
        scores = EditScores(changes, pairs)
        return edit_guidance.GridPoint(scale, image, 0, 0, 0, 0, scores)

    points = [point(s) for s in (1, 2, 4, 7)] + [point(2, 1.3)]
    suited, expected = edit_guidance.choose_suited(points)
    assert suited.scales == (7, 1) and 0.5 < suited.limits[0] <= 9
    assert expected.success == 1 and expected.lpips_gain == pytest.approx(1 - (2 * 0.001 + 8 * 0.01) / 10 / 0.1)
    assert expected.similarity == pytest.approx((2 * 0.3 + 7 * 0.9) / 9)  # age need not keep the person
    assert expected.outside == pytest.approx((2 * 7 + 8 * 1) / 10)
    assert set(edit_guidance.plain(points[0])) == {
        "guidance",
        "image_guidance",
        "success",
        "lpips_gain",
        "similarity",
        "outside",
    }
    assert edit_guidance.grid_figure(points, (suited, expected)) is not None
    with pytest.raises(DataError, match="guidance 1"):
        edit_guidance.choose_suited(points[1:])
    nearest, near = edit_guidance.choose_suited(points, gain=0.99)  # none lies so near
    assert near.lpips_gain == pytest.approx(1 - (2 * 0.001 + 8 * 0.01) / 10 / 0.1) and nearest.scales[-1] == 1


def test_suited_guidance_must_lie_near_and_counts_every_kind_alike():
    """Eight hats and two ages. Louder, ages succeed and hats fail; loudest, everything succeeds, but far from true."""
    age, people = np.arange(10) >= 8, np.arange(10)
    succeeds = {1: ~age, 2: age | (people < 5), 3: age | ~age}

    def point(scale):
        pairs = {
            "kind": np.where(age, "age", "hat"),
            "identity": people,
            "moved": np.ones(10),
            "outside": np.ones(10),
            "lpips": np.full(10, {1: 0.02, 2: 0.06, 3: 0.08}[scale]),
            "lpips_nothing": np.full(10, 0.1),
            "similarity": np.ones(10),
        }
        changes = {"identity": people, "success": succeeds[scale].astype(float), "kind": pairs["kind"]}
        return edit_guidance.GridPoint(scale, 1, 0, 0, 0, 0, EditScores(changes, pairs))

    points = [point(s) for s in (1, 2, 3)]
    suited, expected = edit_guidance.choose_suited(points)
    assert suited.scales == (2,)  # (5 / 8 + 1) / 2 of the kinds, though only 7 of 10 edits
    assert expected.success == pytest.approx(0.7) and expected.lpips_gain == pytest.approx(0.4)
    assert edit_guidance.choose_suited(points, gain=0.2)[0].scales == (3,)
    assert edit_guidance.choose_suited(points, gain=0.5)[0].scales == (1,)


def test_true_latents_are_the_best_that_an_autoencoder_lets_through(pairs_folder, tiny_pipe):
    pairs = EditPairs(pairs_folder, "val")
    editor, items = edit_guidance.true_latents(tiny_pipe, pairs), [pairs[1], pairs[0]]
    before, texts = [i["before"] for i in items], [i["instruction"] for i in items]
    made = editor(before, texts)
    for item, picture in zip(items, made, strict=True):
        after = np.where(item["mask"][..., None], item["after"], item["before"])
        x, y = (torch.from_numpy(p).permute(2, 0, 1)[None].float() / 127.5 - 1 for p in (item["before"], after))
        with torch.no_grad():
            rebuilt, true = (tiny_pipe.vae.decode(tiny_pipe.vae.encode(p).latent_dist.mode()).sample for p in (x, y))
        expected = keep_detail(x, rebuilt, true)[0].clamp(-1, 1).permute(1, 2, 0) * 127.5 + 127.5
        assert np.abs(picture - expected.numpy()).max() <= 1
    with pytest.raises(DataError, match="none of the pairs"):
        editor(before, texts[::-1])


def test_command_measures_a_pipeline(pairs_folder, tiny_pipeline_folder, tmp_path):
    out = tmp_path / "out"
    command = [
        "evaluate-editor",
        "--pairs",
        str(pairs_folder),
        "--pipeline",
        str(tiny_pipeline_folder),
        "-o",
        str(out),
        "--grid",
        "2",
        "--limit",
        "2",
        "--faces",
        "1",
        "--steps",
        "1",
    ]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    record = json.loads((out / "run.json").read_text())
    assert len(record["grid"]) == 11 and len(record["chosen"]["scales"]) == len(record["chosen"]["limits"]) + 1
    assert set(record["true_latents"]) == {"table", "lpips_gain"} and "with the true edits' latents" in done.output
    assert "similarity before/after" in done.output and "on 2 validation pairs" in done.output
    for name in ("edits.csv", "edits.png", "phrasings.csv", "grid.png", "faces.png"):
        assert (out / name).is_file(), name
    about = read_metadata(out / "faces.png")
    assert about["synthetic"] == "true" and len(about["weights_sha256"]) == 64 and about["seed"] == "0"
    assert json.loads(about["instructions"])[0] == "the witness says the eyes are blue"
    assert "synthetic" not in read_metadata(out / "grid.png")
    assert "--overwrite" in CliRunner().invoke(cli.app, command).output


def test_grid_is_measured_on_validation_pairs_only(pairs_folder, tiny_pipe, judge):
    with pytest.raises(DataError, match="validation"):
        edit_guidance.guidance_grid(tiny_pipe, EditPairs(pairs_folder, "test"), judge, JUDGES)
    points = edit_guidance.guidance_grid(
        tiny_pipe, EditPairs(pairs_folder, "val"), judge, JUDGES, (2.0,), (1.0, 1.5), steps=1
    )
    assert [(p.guidance, p.image_guidance) for p in points] == [(2.0, 1.0), (2.0, 1.5)]


class Drawn(torch.nn.Module):
    """Stands for pSp: the sketch, three times, as a face."""

    def forward(self, sketch):
        return (sketch.repeat(1, 3, 1, 1) * 2 - 1), None


def test_edits_of_generated_faces_are_read(judge):
    class Sketches:
        identities = np.array([1, 2, 3])

        def __len__(self):
            return 3

        def __getitem__(self, i):
            drawn = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(i))
            return {"sketch": drawn, "identity": int(self.identities[i]), "photo": drawn.repeat(3, 1, 1)}

    held = {t for kind in phrases.KINDS for t in phrases.templates(kind, held_out=True)}
    for text, request in report.WITNESS:
        assert any(template_of(request.kind, text) == t for t in held), text
    made = report.edit_generated(Drawn(), Sketches(), do_nothing, judge, JUDGES.identity, n=2)
    assert made.success.shape == (2, len(report.WITNESS)) and made.rate().value == 0
    assert made.similarity.min() == 1 and made.figure(2) is not None
    assert same_person_level(type("Two", (Sketches,), {"identities": np.array([1, 1, 3])})(), JUDGES.identity).n == 1


def test_scores_without_pairs_are_an_error():
    empty = EditScores({"kind": np.array([]), "success": np.array([])}, {})
    with pytest.raises(DataError):
        empty.of_kind("hat")
