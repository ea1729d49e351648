"""The UNet's last stage: guesses shown as edit shows them, what they lack of the true edit, and the net that reads."""

import pytest
import torch
from editing_stand_in import pairs_folder_fixture, vae_file_fixture  # noqa: F401  (fixtures)

from s2flib.errors import S2FError, WeightsError
from s2flib.files import weights_dir
from s2flib.images import as_float
from s2flib.instruct_pix2pix.editing import keep_detail
from s2flib.judges.edit_judge import HEADS, load_edit_reader
from s2flib.training import edit_unet as editor
from s2flib.training import edit_vae as editor_vae
from s2flib.training.edit_judge import ReaderConfig, train_reader
from s2flib.training.edit_unet import UNetConfig, train_unet
from s2flib.training.trainer import make_accelerator

SMALL = dict(cpu=True, mixed_precision="no", log_every=1, save_every=1e9, seed=3)


@pytest.fixture(scope="module")
def reader_file(pairs_folder, tmp_path_factory):
    return train_reader(
        ReaderConfig(
            out=str(tmp_path_factory.mktemp("reader")),
            pairs=str(pairs_folder),
            photos=False,
            steps=2,
            batch=4,
            limit=6,
            cpu=True,
        )
    )


@pytest.fixture(scope="module")
def showing(pairs_folder, vae_file, reader_file, tmp_path_factory):
    """A trainer in whose last half guesses are shown, compared in every way."""

    cfg = UNetConfig(
        out=str(tmp_path_factory.mktemp("showing")),
        pairs=str(pairs_folder),
        vae=str(vae_file),
        batch=4,
        limit=4,
        pretrain_text=0,
        steps=4,
        shown_from=0.5,
        lambda_lpips=1.0,
        lambda_change=1.0,
        lambda_reading=1.0,
        reader=str(reader_file),
        **SMALL,
    )
    return editor.UNetTrainer(cfg, make_accelerator(cpu=True))


def test_guesses_are_shown_in_the_last_part(showing, monkeypatch):
    """Compared with what the shown pairs truly become, each its own way round and mirrored as its latents are."""
    frozen = {k: v.clone() for net in (showing.vae, showing.reader) for k, v in net.state_dict().items()}
    seen, real = [], showing.shown
    monkeypatch.setattr(showing, "shown", lambda guess, before, x: seen.append((before, x)) or real(guess, before, x))
    sides, compare = [], showing.picture_losses
    monkeypatch.setattr(
        showing,
        "picture_losses",
        lambda shown, x, truth, weight: sides.append((x, truth)) or compare(shown, x, truth, weight),
    )
    ways = {"lpips", "change", "reading"}
    assert [ways & set(showing.step()) for _ in range(4)] == [set(), set(), ways, ways]
    assert all(torch.equal(v, frozen[k]) for net in (showing.vae, showing.reader) for k, v in net.state_dict().items())
    for before, x in seen:
        with torch.no_grad():
            assert torch.allclose(showing.vae.encode(x).latent_dist.mode(), before, atol=5e-3, rtol=5e-3)
    pairs = as_float(showing.pictures)
    pairs = torch.cat([pairs, pairs.flip(4)])
    pairs = torch.cat([pairs, pairs.flip(1)])  # mirrored, backwards, or both
    for x, truth in sides:
        for one in torch.stack([x, truth], 1):
            assert (pairs == one).flatten(1).all(1).any()
    monkeypatch.setattr(editor, "drop_conditions", lambda texts, picture, u, share: (texts, picture * 0))
    assert set(showing.step()) == {"loss", "error"}  # no picture left to compare


def test_a_shown_guess_is_what_edit_would_give(showing):
    before = showing.latents.z[0, :2, 0].float()
    x = editor_vae.as_float(showing.pictures[:2, 0])
    assert torch.equal(showing.shown(before * showing.latents.scale, before, x), x)  # nothing changed
    other = before + torch.randn_like(before)
    with torch.no_grad():
        expected = keep_detail(x, *(showing.vae.decode(z).sample for z in (before, other)))
        assert torch.allclose(showing.shown(other * showing.latents.scale, before, x), expected, atol=1e-4)
    assert (expected - x).abs().mean() > 0.01


@pytest.mark.parametrize("way", ["lpips", "change", "reading"])
def test_what_a_shown_guess_lacks_falls_along_its_gradient_to_none(showing, way):
    x, truth = (editor_vae.as_float(showing.pictures[:3, side]) for side in (0, 1))
    weight = torch.ones(3)
    assert showing.picture_losses(truth, x, truth, weight)[way].item() == pytest.approx(0, abs=1e-6)
    assert showing.picture_losses(x, x, truth, weight)[way] > 1e-5
    shown = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    far = showing.picture_losses(shown, x, truth, weight)[way]
    (slope,) = torch.autograd.grad(far, shown)
    step = 0.05 * slope / slope.norm()
    with torch.no_grad():
        both = [showing.picture_losses(shown + sign * step, x, truth, weight)[way] for sign in (1, -1)]
    assert ((both[0] - both[1]) / 0.1).item() == pytest.approx(slope.norm().item(), rel=0.05)


def test_faint_changes_weigh_as_much_as_their_pair_does(showing):
    """Half of "change" is the mean error, half that where the pictures differ; a pair's weight multiplies it."""
    x = torch.zeros(2, 3, 32, 32)
    truth, shown = x.clone(), x.clone()
    truth[:, :, 8:16, 8:16] = 0.2  # a sixteenth of the picture
    shown[0, :, 8:16, 8:16] = 0.1  # half of it, in the first pair
    shown[1] = truth[1]
    shown[1, :, 24:, 24:] = 0.1  # as large an error elsewhere, in the second

    def lost(*weight: float) -> float:
        return showing.picture_losses(shown, x, truth, torch.tensor(weight))["change"].item()

    inside, outside = 0.1 / 16 * (0.5 + 0.5 * 16), 0.1 / 16 * 0.5
    assert lost(1, 0) == pytest.approx(inside / 2, rel=0.05) and lost(0, 1) == pytest.approx(outside / 2, rel=0.05)
    assert lost(3, 1) == pytest.approx((3 * inside + outside) / 2, rel=0.05)


def test_reading_distance_is_divergence_and_huber(reader_file):
    sizes = [max(1, len(v)) for v in HEADS.values()]
    read, truth = torch.randn(2, 5, sum(sizes), generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for name, said, true in zip(HEADS, read.split(sizes, 1), truth.split(sizes, 1), strict=True):
        if HEADS[name]:
            p, q = true.softmax(1), said.softmax(1)
            expected += (p * (p / q).log()).sum() / 5
        else:
            off = (said - true).abs()
            expected += 16 * torch.where(off < 1, off**2 / 2, off - 0.5).mean()
    assert editor.reading_distance(read, truth, sizes).item() == pytest.approx(expected.item(), rel=1e-5)
    reader = load_edit_reader(reader_file)
    assert {k: v.shape for k, v in reader.heads(torch.zeros(2, 3, 128, 128)).items()} == {
        k: (2, len(v)) if v else (2,) for k, v in HEADS.items()
    }
    assert not any(p.requires_grad for p in reader.parameters()) and not reader.training


def test_reading_needs_a_reader(pairs_folder, vae_file, reader_file, tmp_path):
    common = dict(out=str(tmp_path / "run"), pairs=str(pairs_folder), vae=str(vae_file), lambda_reading=1.0, **SMALL)
    with pytest.raises(S2FError, match="edit-reader"):
        train_unet(UNetConfig(**common))
    with pytest.raises(WeightsError):  # the judge, which no editor may learn from
        train_unet(UNetConfig(reader=str(weights_dir() / "tiny-edit-judge.safetensors"), **common))
    with pytest.raises(S2FError, match="edit reader is trained on edit pairs"):
        train_reader(ReaderConfig(out=str(tmp_path)))
    with pytest.raises(WeightsError):
        load_edit_reader(tmp_path / "none.safetensors")
