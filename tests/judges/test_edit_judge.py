"""The edit judge: what it should read, its heads, its training."""

import pytest
import torch
from editing_stand_in import pairs_folder_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)

from s2flib.errors import WeightsError
from s2flib.judges.edit_judge import HEADS, STRIPS, EditJudge, expected_reading, load_edit_judge, truth
from s2flib.synthfaces.edits import Edit
from s2flib.training.edit_judge import JudgeConfig, disturb, heads_loss, train_judge


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return EditJudge().eval()


def attributes(**changes):
    return {
        "hair_color": "blond",
        "hair_style": "short",
        "eye_color": "blue",
        "glasses": "round",
        "beard": "none",
        "makeup": 0.2,
        "expression": "smile",
        "hat": "none",
        "age": 61.0,
        "skin_tone": 3.0,
    } | changes


def test_truth_leaves_out_what_cannot_be_seen():
    t = truth(attributes())
    assert HEADS["glasses"][t["glasses"]] == "clear" and t["makeup"] is None and t["age"] == pytest.approx(1.0)
    assert truth(attributes(hair_style="bald"))["hair_color"] is None
    assert truth(attributes(glasses="sun"))["eye_color"] is None
    assert truth(attributes(hat="cap"))["hair_style"] is None
    assert truth(attributes(expression="wink"))["expression"] is None


def test_every_kind_of_edit_has_a_head():
    for kind, value in (
        ("hair_color", "red"),
        ("hair_style", "bob"),
        ("eye_color", "grey"),
        ("glasses", "clear"),
        ("no_glasses", ""),
        ("sunglasses", "sun"),
        ("beard", "full"),
        ("no_beard", "none"),
        ("makeup", "0.9"),
        ("no_makeup", "0"),
        ("expression", "grin"),
        ("hat", "cap"),
        ("no_hat", ""),
    ):
        head, place = expected_reading(Edit(kind, value))
        assert HEADS[head][place] in (value, "none", "yes", "no")
    assert expected_reading(Edit("age", "50")) == ("age", None) and expected_reading(Edit("background", "1")) is None


def test_strips_are_read_beside_the_face(judge):
    """With the face's net gone, a head follows the pixels of its own strip and no others."""
    nothing = torch.nn.Module()
    nothing.forward = lambda x: torch.zeros(len(x), sum(judge.sizes))
    blind = EditJudge().eval()
    blind.strips, blind.face = judge.strips, nothing
    x = torch.zeros(1, 3, 128, 128)
    for head, (top, bottom, left, right) in STRIPS.items():
        strip = torch.zeros(128, 128, dtype=torch.bool)
        strip[round(top * 128) : round(bottom * 128), round(left * 128) : round(right * 128)] = True
        inside, outside = (blind.heads(torch.where(where, torch.randn_like(x), x)) for where in (strip, ~strip))
        before = blind.heads(x)
        assert not torch.allclose(inside[head], before[head]) and torch.equal(outside[head], before[head])
        assert torch.equal(inside["hat"], before["hat"])


def test_unknown_targets_do_not_count():
    sizes = EditJudge().sizes
    out = torch.randn(4, sum(sizes), requires_grad=True)
    target = torch.full((4, len(HEADS)), float("nan"))
    target[1, 0] = 2.0
    heads_loss(out, target, sizes).backward()
    assert (
        out.grad[1, : sizes[0]].abs().sum() > 0 and out.grad[0].abs().sum() == 0 and out.grad[:, sizes[0] :].sum() == 0
    )
    x = torch.rand(8, 3, 32, 32)
    assert disturb(x).shape == x.shape and (disturb(x).mean((0, 2, 3)) - x.mean((0, 2, 3))).abs().max() < 0.01


def test_judge_trains_saves_and_loads(pairs_folder, tmp_path):
    path = train_judge(
        JudgeConfig(
            out=str(tmp_path), pairs=str(pairs_folder), photos=False, steps=2, batch=4, limit=6, cpu=True, log_every=1
        )
    )
    assert load_edit_judge(path).heads(torch.zeros(1, 3, 128, 128))["hat"].shape == (1, 4)
    with pytest.raises(WeightsError):
        load_edit_judge(tmp_path / "none.safetensors")


def test_heads_are_probabilities_and_numbers(judge):
    found = judge.heads(torch.zeros(2, 3, 128, 128))
    for name, values in HEADS.items():
        if values:
            assert torch.allclose(found[name].exp().sum(1), torch.ones(2), atol=1e-5)
        else:
            assert found[name].shape == (2,)
