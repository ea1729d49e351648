"""Training the tiny InstructPix2Pix's UNet: recipe, resume, export."""

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture, vae_file_fixture, write_pairs  # noqa: F401  (fixtures)

from s2flib.datasets.edit_pairs import EditPairs, times_drawn
from s2flib.errors import S2FError, WeightsError
from s2flib.instruct_pix2pix import pipeline as edit_pipeline
from s2flib.instruct_pix2pix.networks import build_scheduler, build_vae
from s2flib.training import edit_unet as editor
from s2flib.training import edit_vae as editor_vae
from s2flib.training.edit_unet import (
    UNetConfig,
    clean_of,
    denoising_loss,
    drop_conditions,
    noise_times,
    noise_weight,
    target_of,
    train_unet,
)
from s2flib.training.edit_vae import VaeConfig, pair_weight, place_weight, train_vae
from s2flib.training.trainer import make_accelerator
from s2flib.weights import load_tensors, save_safetensors

SMALL = dict(cpu=True, mixed_precision="no", log_every=1, save_every=1e9, seed=3)


# --- the recipe -------------------------------------------------------------------------------------------------


def test_conditions_are_dropped_five_percent_each():
    n, u = 20_000, torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    texts, pictures = drop_conditions(["hat"] * n, torch.ones(n, 1, 1, 1), u, 0.05)
    no_text, no_picture = np.array([t == "" for t in texts]), (pictures.flatten() == 0).numpy()
    for share in ((no_text & ~no_picture).mean(), (no_picture & ~no_text).mean(), (no_text & no_picture).mean()):
        assert share == pytest.approx(0.05, abs=0.006)
    assert drop_conditions(["hat"], torch.ones(1, 1, 1, 1), torch.zeros(1), 0.0)[0] == ["hat"]


@pytest.mark.parametrize("prediction", editor.PREDICTIONS)
def test_targets_are_what_the_scheduler_takes_them_for(prediction):
    """A perfect prediction, handed to the scheduler at any time, gives back the clean latents."""
    torch.manual_seed(0)
    scheduler = build_scheduler(prediction)
    scheduler.set_timesteps(10)
    x0, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for t in scheduler.timesteps[1:]:  # at pure noise ε says nothing about x₀
        a = scheduler.alphas_cumprod[t].view(1, 1, 1, 1)
        noisy = scheduler.add_noise(x0, noise, t[None])
        assert torch.allclose(noisy, a.sqrt() * x0 + (1 - a).sqrt() * noise, atol=1e-5)
        found = scheduler.step(target_of(prediction, x0, noise, a), t, noisy).pred_original_sample
        assert torch.allclose(found, x0, atol=2e-3)
    assert scheduler.alphas_cumprod[-1] < 1e-6  # the last time is pure noise


@pytest.mark.parametrize("prediction", editor.PREDICTIONS)
def test_the_clean_guess_is_the_inverse_of_the_target(prediction):
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    a = torch.tensor([0.9, 0.5, 0.02])[:, None, None, None]
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    assert torch.allclose(clean_of(prediction, target_of(prediction, x0, noise, a), noisy, a), x0, atol=1e-5)


@pytest.mark.parametrize("prediction", editor.PREDICTIONS)
def test_the_loss_weights_the_error_of_the_clean_latents_by_the_truncated_snr(prediction):
    x0, noise, slip = torch.randn(3, 2, 4, 2, 2, generator=torch.Generator().manual_seed(4))
    a = torch.tensor([0.9, 0.5])[:, None, None, None]  # signal-to-noise ratios 9 and 1
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    guess = x0 + 0.1 * slip
    implied = (noisy - a.sqrt() * guess) / (1 - a).sqrt()
    said = target_of(prediction, guess, implied, a)
    loss, plain = denoising_loss(prediction, said, x0, noise, a)
    wanted = (torch.tensor([5.0, 1.0])[:, None, None, None] * (0.1 * slip).square()).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert plain.item() == pytest.approx((said - target_of(prediction, x0, noise, a)).square().mean().item())
    doubled, _ = denoising_loss(prediction, said, x0, noise, a, torch.full((2, 1, 2, 2), 2.0))
    assert doubled.item() == pytest.approx(2 * loss.item(), rel=1e-5)


def test_weights_of_noise_and_place():
    a = torch.tensor([1e-8, 0.5, 0.8, 0.999])
    assert noise_weight("sample", a).tolist() == pytest.approx([1, 1, 4, 5], rel=1e-3)
    assert noise_weight("v_prediction", a)[1].item() == pytest.approx(0.5)
    change = torch.zeros(2, 4, 4)
    change[0, 1, 2] = 0.5
    weight = place_weight(change, 1.0)
    assert weight.shape == (2, 1, 4, 4)
    assert weight.mean((1, 2, 3)).tolist() == pytest.approx([1, 1], rel=1e-3)
    assert weight[0, 0, 1, 2] > 8 and weight[0, 0, 0, 0] == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(weight[1], torch.ones(4, 4))
    assert torch.allclose(place_weight(change, 0.0), torch.ones(2, 1, 4, 4))
    weight = pair_weight(torch.stack([torch.full((4, 4), 0.002), torch.full((4, 4), 0.062)]), 0.5)
    assert weight.mean().item() == pytest.approx(1) and (weight[0] / weight[1]).item() == pytest.approx(4, rel=1e-3)
    assert torch.equal(pair_weight(change, 0.0), torch.ones(2))


def test_noisy_times_come_more_often():
    generator = torch.Generator().manual_seed(0)
    for noisy in (1.0, 2.0):
        t = noise_times(40_000, 1000, noisy, generator)
        assert t.min() >= 0 and t.max() == 999 and t.dtype == torch.int64
        for x in (0.25, 0.5, 0.75):  # the distribution is x^noisy
            assert (t < 1000 * x).float().mean().item() == pytest.approx(x**noisy, abs=0.01)


def test_some_kinds_are_drawn_more_often(pairs_folder, vae_file, tmp_path):
    from collections import Counter

    assert times_drawn("age=2,hat=3") == {"age": 2, "hat": 3} and times_drawn("") == {}
    for wrong in ("aeg=2", "age", "age=0", "age=x", "age:2", "age=1.5"):
        with pytest.raises(S2FError, match="such as age=2"):
            times_drawn(wrong)
    rows, items = EditPairs(pairs_folder, "train", limit=8).rows, {}
    hit = rows[0].edits[0].kind
    for often in ("", f"{hit}=3"):
        cfg = UNetConfig(
            out=str(tmp_path),
            pairs=str(pairs_folder),
            vae=str(vae_file),
            limit=8,
            pretrain_text=0,
            often=often,
            **SMALL,
        )
        items[often] = Counter(
            (i, back, wish[0].kind) for i, back, wish in editor.UNetTrainer(cfg, make_accelerator(cpu=True)).items
        )
    assert set(items[""].values()) == {1} and len(items[""]) >= len(rows)
    assert items[f"{hit}=3"] == {item: 3 if item[2] == hit else 1 for item in items[""]}


# --- stage 2 ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(pairs_folder, vae_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("editor")
    common = dict(pairs=str(pairs_folder), vae=str(vae_file), batch=4, limit=8, pretrain_text=3, **SMALL)
    folder = train_unet(UNetConfig(out=str(out / "a"), steps=4, **common))
    return out, common, folder


def test_editor_resumes_to_the_same_numbers(trained, monkeypatch):
    out, common, _ = trained
    monkeypatch.setattr(editor.UNetTrainer, "picture", lambda self: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(editor.UNetTrainer, "export", lambda self, out: None)
    train_unet(UNetConfig(out=str(out / "b"), steps=4, max_time=0.0, **common))
    train_unet(UNetConfig(out=str(out / "b"), steps=4, resume=True, **common))
    a, b = (torch.load(out / k / "checkpoint.pt", weights_only=True)["state"] for k in "ab")
    for part in ("nets", "average"):
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])
    assert (out / "b" / "latents-train.safetensors").is_file()


def test_editor_exports_a_pipeline_that_edits(trained, astronaut):
    from s2flib.instruct_pix2pix import edit

    out, _, folder = trained
    pipe = edit_pipeline.load_pipeline("tiny", folder, device="cpu")
    assert pipe.scheduler.config.prediction_type == "sample" and pipe.unet.config.in_channels == 32
    scale = float(load_scale(out / "a" / "latents-train.safetensors"))
    assert pipe.vae.config.scaling_factor == pytest.approx(scale)
    assert edit(astronaut, "make the hair blond", pipe=pipe, steps=1).image.shape == (128, 128, 3)
    assert (out / "a" / "samples" / "0000004.png").is_file() and (out / "a" / "run.json").is_file()


def load_scale(path):
    from s2flib.weights import safe_load

    return safe_load(path, with_metadata=True)[1]["scale"]


def test_training_goes_on_from_a_pipeline(trained, tmp_path):

    _, common, folder = trained
    pipe = edit_pipeline.load_pipeline("tiny", folder, "cpu")
    cfg = UNetConfig(out=str(tmp_path), init=str(folder), **common | {"vae": str(folder)})
    trainer = editor.UNetTrainer(cfg, make_accelerator(cpu=True))
    made = trainer.pipeline()
    for part in ("unet", "vae", "text_encoder"):
        for (name, a), b in zip(
            getattr(made, part).state_dict().items(), getattr(pipe, part).state_dict().values(), strict=True
        ):
            # the scale is taken from the pipeline's settings, where it is not rounded to float16
            assert torch.allclose(a, b.float(), rtol=1e-3 if name == "picture_scale" else 0, atol=0), (part, name)
    assert made.vae.config.scaling_factor == pipe.vae.config.scaling_factor == trainer.latents.scale


def test_training_does_not_go_on_from_another_unet(trained, tmp_path):
    from diffusers import UNet2DConditionModel

    _, common, folder = trained
    pipe = edit_pipeline.load_pipeline("tiny", folder, "cpu")
    plain = UNet2DConditionModel.from_config(pipe.unet.config)
    other = edit_pipeline.save_pipeline(
        edit_pipeline.assemble(plain, pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.scheduler), tmp_path / "plain"
    )
    with pytest.raises(WeightsError, match="another UNet"):
        editor.UNetTrainer(
            UNetConfig(out=str(tmp_path), init=str(other), **common | {"vae": str(folder)}), make_accelerator(cpu=True)
        )


def test_editor_loss_falls(pairs_folder, vae_file, tmp_path):
    """On two pairs, repeated, the weighted error of the prediction drops well below its first value."""

    cfg = UNetConfig(
        out=str(tmp_path),
        pairs=str(pairs_folder),
        vae=str(vae_file),
        batch=4,
        limit=2,
        pretrain_text=0,
        steps=100,
        lr=1e-2,
        **SMALL,
    )
    trainer = editor.UNetTrainer(cfg, make_accelerator(cpu=True))
    z = trainer.latents.z[0].float()
    ids = trainer.words([row.instruction for row in EditPairs(pairs_folder, "train", limit=2).rows])

    @torch.no_grad()
    def error():
        """At the same times and noises before and after."""
        generator = torch.Generator().manual_seed(0)
        return np.mean(
            [
                trainer.loss(trainer.nets, ids, z[:, 0], z[:, 1], trainer.latents.change, generator)[0].item()
                for _ in range(16)
            ]
        )

    first = error()
    losses = [trainer.step()["loss"] for _ in range(30)]
    assert error() < 0.75 * first
    assert all(np.isfinite(losses)) and "val_nothing_done" in trainer.validate()


def test_mirrored_latents_are_those_of_the_mirrored_pair(vae_file):
    vae = build_vae().eval()
    vae.load_state_dict(load_tensors(vae_file, editor_vae.KIND))
    before = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[:, :, 8:16, 8:16] = 0
    mask = (before != after).any(1)
    after[:, :, 24:, 24:] ^= 1  # WebP's losses outside the mask are not learnt
    arrays = {"before": before.numpy(), "after": after.numpy(), "mask": mask.numpy()}
    made = editor.encode_pairs(vae, arrays)
    assert made.z.shape == (2, 2, 2, 16, 4, 4) and made.change.shape == (2, 4, 4)
    assert made.change[0, 1, 1] > 0.1 and made.change[0, 3, 3] == 0
    again = editor.encode_pairs(vae, {name: a[..., ::-1].copy() for name, a in arrays.items()})
    assert torch.equal(made.z[1], again.z[0])
    assert made.z[0, :, 0].float().std() * made.scale == pytest.approx(1, rel=1e-3)


def test_training_refuses_what_cannot_be(pairs_folder, vae_file, tmp_path):
    with pytest.raises(WeightsError, match="--stage vae"):
        train_unet(UNetConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(tmp_path / "none.safetensors")))
    with pytest.raises(S2FError, match="v_prediction"):
        train_unet(UNetConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(vae_file), prediction="x", **SMALL))


def test_a_decoder_for_other_latents_is_refused(trained, tmp_path):
    torch.manual_seed(5)
    other = save_safetensors(
        tmp_path / "vae.safetensors", build_vae().state_dict(), {"kind": editor_vae.KIND, "preset": "tiny"}, half=False
    )
    with pytest.raises(WeightsError, match="another encoder"):
        editor.use_decoder(trained[2], other)
    with pytest.raises(S2FError, match="encoder"):
        train_vae(VaeConfig(out=str(tmp_path / "d"), decoder_only=True, **SMALL))
