"""Edit pairs, their words, and the training of the tiny InstructPix2Pix: data, recipe, loss, resume, export."""

import json
import re

import numpy as np
import pytest
import torch
from editing_stand_in import pairs_folder_fixture, write_pairs  # noqa: F401  (fixtures)
from typer.testing import CliRunner

from s2flib import cli
from s2flib.errors import DataError, S2FError, WeightsError
from s2flib.stylize import paraphrases
from s2flib.stylize import pipeline as edit_pipeline
from s2flib.stylize.networks import TEXT_TOKENS, build_scheduler, build_text_encoder, build_vae
from s2flib.stylize.pairs import KINDS, Change, EditPairs, Request, attributes_of, words_of
from s2flib.synthfaces import phrases
from s2flib.training import editor, editor_vae
from s2flib.training.editor import (
    EditorConfig,
    clean_of,
    drop_conditions,
    noise_weight,
    pair_weight,
    target_of,
    train_editor,
)
from s2flib.training.editor_text import UNKNOWN, Words, school
from s2flib.training.editor_vae import VaeConfig, place_weight, train_vae, training_pictures
from s2flib.weights import load_tensors, save_safetensors

SMALL = dict(cpu=True, mixed_precision="no", log_every=1, save_every=1e9, seed=3)


@pytest.fixture(scope="module")
def words():
    return Words(edit_pipeline.load_tokenizer())


@pytest.fixture(scope="module")
def vae_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    return save_safetensors(path, build_vae().state_dict(), {"kind": editor_vae.KIND, "preset": "tiny"}, half=False)


# --- pairs ------------------------------------------------------------------------------------------------------

def test_pairs_are_split_by_person_and_read_whole(pairs_folder):
    splits = {s: EditPairs(pairs_folder, s, size=64) for s in ("train", "val", "test")}
    people = [{row.identity for row in pairs.rows} for pairs in splits.values()]
    assert [len(p) for p in people] == [24, 3, 3] and not people[0] & people[1] and not people[0] & people[2]
    item = splits["train"][0]
    assert item["before"].shape == (64, 64, 3) and item["mask"].dtype == bool and item["kind"] == "hair_color"
    assert (item["before"] != item["after"])[~item["mask"]].sum() == 0
    arrays = splits["train"].arrays()
    assert (arrays["after"][5].transpose(1, 2, 0) == splits["train"][5]["after"]).all()
    assert EditPairs(pairs_folder, "train", size=128)[0]["before"].shape == (128, 128, 3)


def test_pairs_of_some_kinds_can_be_kept(pairs_folder):
    pairs = EditPairs(pairs_folder, "train", size=64)
    pairs.keep_kinds(["age", "hat"])
    assert len(pairs) == len(pairs.arrays()["before"]) == 8 and {row.kind for row in pairs.rows} == {"age", "hat"}
    with pytest.raises(DataError, match="no kind of edit 'nose'"):
        pairs.keep_kinds(["nose"])
    with pytest.raises(DataError, match="no beard pairs"):
        pairs.keep_kinds(["beard"])


def test_pairs_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(DataError, match="edits.zip is missing"):
        EditPairs(tmp_path, "train")
    folder = write_pairs(tmp_path / "pairs", 10)
    with pytest.raises(DataError, match="no split"):
        EditPairs(folder, "all")
    text = (folder / "edits.csv").read_text()
    (folder / "edits.csv").write_text(text.replace("000001,train", "000001,elsewhere"))
    with pytest.raises(DataError, match="line 3"):
        EditPairs(folder, "train")
    (folder / "edits.csv").write_text(text.replace(",1000001,", ",1000008,"))
    with pytest.raises(DataError, match="two splits"):
        EditPairs(folder, "train")
    (folder / "edits.csv").write_text(text)
    (folder / "render.json").write_text(json.dumps({"seed": 0, "version": -1}))
    with pytest.raises(DataError, match="render the pairs again"):
        EditPairs(folder, "train").wishes()


def test_the_way_back_undoes_the_change(pairs_folder):
    pairs = EditPairs(pairs_folder, "train")
    kinds = {"hair_color": "hair_color", "eye_color": "eye_color", "background": "background", "age": "age"}
    for row, (there, back) in zip(pairs.rows, pairs.wishes(), strict=True):
        (change,) = there
        assert change.kind == row.kind
        if back is None:
            continue
        assert back[0].kind == kinds.get(row.kind, back[0].kind)
        before, after = attributes_of(row, 0)
        if row.kind in ("hair_color", "eye_color"):
            assert back[0].value == before[row.kind] and after[row.kind] == change.value


def test_values_are_put_into_words():
    assert words_of(Request("hair_color", "darkbrown"), {}) == "dark brown"
    assert words_of(Request("age", "52.0"), {"age": 40.0}) == "a little older"
    assert words_of(Request("skin_tone", "3.0"), {"skin_tone": 1.2}) == "darker"
    assert words_of(Request("no_hat", ""), {}) == ""


# --- words ------------------------------------------------------------------------------------------------------

def split_words(text):
    return tuple(re.findall(r"[a-z{}'-]+", text.lower()))


def test_no_training_phrasing_is_a_held_out_one_or_shares_four_words_with_one():
    held = {split_words(t) for kind in KINDS for t in phrases.templates(kind, held_out=True)}
    runs = {h[i:i + 4] for h in held for i in range(len(h) - 3)}
    for kind in KINDS:
        assert set(paraphrases.MORE[kind]).isdisjoint(phrases.TEMPLATES[kind])
        for template in (*paraphrases.MORE[kind], *crossed(kind)):
            own = split_words(template)
            assert own not in held, template
            assert not any(own[i:i + 4] in runs for i in range(len(own) - 3)), template


def crossed(kind):
    """Templates that begin with one of the verbs of change, with each of the others instead."""
    for template in paraphrases.templates(kind):
        verb, _, rest = template.partition(" ")
        if verb in paraphrases._VERBS:
            yield from (f"{other} {rest}" for other in paraphrases._VERBS if other != verb)


def test_no_verb_of_change_means_one_kind_only():
    firsts = {}
    for kind in KINDS:
        wish = Change(kind, "", "grey")
        for k in range(400):
            firsts.setdefault(paraphrases.phrase(wish, np.random.default_rng(k)).split()[0], set()).add(kind)
    for verb in paraphrases._VERBS:
        assert {"hair_style", "eye_color", "skin_tone", "background"} <= firsts[verb], verb


def test_sentences_are_reproducible_and_varied():
    wish = (Change("hair_color", "blond", "blond"), Change("glasses", "clear", ""))
    made = [paraphrases.sentence(wish, np.random.default_rng(k)) for k in range(200)]
    assert made == [paraphrases.sentence(wish, np.random.default_rng(k)) for k in range(200)]
    assert len(set(made)) > 150 and all("{" not in m for m in made)
    held = {t.format(x="blond") for t in phrases.templates("hair_color", held_out=True)}
    assert not any(h in m for h in held for m in made)


def test_instructions_become_compact_tokens(words):
    ids = words(["make the hair blond", "zyzzyva"])
    assert ids.shape == (2, TEXT_TOKENS) and ids.max() < words.size < 1000
    assert ids[0, 0] == words.size - 2 and ids[0, 5] == words.size - 1
    assert set(ids[1, 1:].tolist()) == {UNKNOWN, words.size - 1}
    known = words([paraphrases.sentence((Change("hat", "cap", "a baseball cap"),), np.random.default_rng(k))
                   for k in range(60)])
    assert (known != UNKNOWN).all(), "every training sentence is in words that are trained"


def test_exported_text_encoder_says_the_same_with_clips_whole_vocabulary(words):
    torch.manual_seed(0)
    small = build_text_encoder(words.size).eval()
    full = words.full(small)
    text = "give this person glasses and blorb hair"
    ids = edit_pipeline.load_tokenizer()([text], padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(full(ids.input_ids).last_hidden_state, small(words([text])).last_hidden_state, atol=1e-5)
    again, original = words.compacted(full), small.state_dict()
    assert all(torch.equal(again[k], original[k]) for k in original)


def test_schooling_teaches_what_is_asked_for(words):
    torch.manual_seed(0)
    wishes = [(Change("hat", "cap", "a baseball cap"),), (Change("no_hat", "", ""),), (Change("no_beard", "none", ""),)]
    found = school(build_text_encoder(words.size), words, wishes, steps=30, seed=0, batch=32)
    assert found["quiz_right"] > 0.8


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
    for t in scheduler.timesteps[1:]:                       # at pure noise ε says nothing about x₀
        a = scheduler.alphas_cumprod[t].view(1, 1, 1, 1)
        noisy = scheduler.add_noise(x0, noise, t[None])
        assert torch.allclose(noisy, a.sqrt() * x0 + (1 - a).sqrt() * noise, atol=1e-5)
        found = scheduler.step(target_of(prediction, x0, noise, a), t, noisy).pred_original_sample
        assert torch.allclose(found, x0, atol=2e-3)
    assert scheduler.alphas_cumprod[-1] < 1e-6              # the last time is pure noise


@pytest.mark.parametrize("prediction", editor.PREDICTIONS)
def test_the_clean_guess_is_the_inverse_of_the_target(prediction):
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(2))
    a = torch.tensor([0.9, 0.5, 0.02])[:, None, None, None]
    noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
    assert torch.allclose(clean_of(prediction, target_of(prediction, x0, noise, a), noisy, a), x0, atol=1e-5)


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
    weight = pair_weight(torch.stack([torch.full((4, 4), 0.003), torch.full((4, 4), 0.063)]), 0.5)
    assert weight.mean().item() == pytest.approx(1) and (weight[0] / weight[1]).item() == pytest.approx(4, rel=1e-3)
    assert torch.equal(pair_weight(change, 0.0), torch.ones(2))


# --- stage 1 ----------------------------------------------------------------------------------------------------

def test_autoencoder_learns_and_resumes_to_the_same_numbers(pairs_folder, tmp_path):
    common = dict(pairs=str(pairs_folder), photos=False, batch=2, limit=3, lpips_from=0.5, lr=2e-3, **SMALL)
    whole = train_vae(VaeConfig(out=str(tmp_path / "a"), steps=4, **common))
    train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, max_time=0.0, **common))
    resumed = train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, resume=True, **common))
    a, b = (load_tensors(p, editor_vae.KIND) for p in (whole, resumed))
    assert all(torch.equal(a[k], b[k]) for k in a)
    log = [line.split(",") for line in (tmp_path / "a" / "log.csv").read_text().splitlines()[1:]]
    assert {"val_psnr", "val_lpips", "lpips", "kl"} <= {name for _, name, _ in log}
    with pytest.raises(S2FError, match="--resume"):
        train_vae(VaeConfig(out=str(tmp_path / "b"), steps=4, **common))
    with pytest.raises(S2FError, match="nothing to train"):
        train_vae(VaeConfig(out=str(tmp_path / "c"), photos=False, **SMALL))


def test_autoencoder_loss_falls(pairs_folder, tmp_path):
    from s2flib.training import engine

    cfg = VaeConfig(out=str(tmp_path), pairs=str(pairs_folder), photos=False, batch=2, limit=1, lambda_lpips=0, lr=0.05,
                    **SMALL)
    trainer = editor_vae.VaeTrainer(cfg, engine.make_accelerator("no", cpu=True))
    losses = [trainer.step()["weighted"] for _ in range(25)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_autoencoder_looks_where_pairs_differ(pairs_folder, tmp_path, monkeypatch):
    """Half of the weight of a pair's error lies on its change, mirrored or not; photos are weighed evenly."""
    from types import SimpleNamespace

    from s2flib.training import engine

    cfg = VaeConfig(out=str(tmp_path), pairs=str(pairs_folder), photos=True, batch=10, limit=3, lambda_lpips=0, **SMALL)
    pictures, change, _ = training_pictures(cfg)
    assert len(pictures) == 9 and len(change) == 6
    assert (change[0] == (pictures[0].float() - pictures[3].float()).abs().mean(0).round()).all()
    assert torch.equal(change[:3], change[3:])
    trainer = editor_vae.VaeTrainer(cfg, engine.make_accelerator("no", cpu=True))
    monkeypatch.setattr(engine, "batch_indices", lambda *a: list(range(9)))
    grey = torch.zeros(9, 3, 128, 128)
    monkeypatch.setattr(trainer.vae, "decode", lambda z: SimpleNamespace(sample=0 * z.mean() + grey))
    stats = trainer.step()                                        # the error is |x|
    x, weight = pictures / 127.5 - 1, torch.ones(9, 128, 128)
    error = x.abs().mean(1)
    colour = sum((x[:, c] - (x[:, 0] + x[:, 1] + x[:, 2]) / 3).square() for c in range(3)) / 3
    for k in range(6):
        weight[k] = 0.5 + 0.5 * change[k] / change[k].float().mean()
    assert stats["weighted"] == pytest.approx((weight * (error + 20 * colour)).mean().item(), rel=2e-3)
    assert stats["weighted"] != pytest.approx((error + 20 * colour).mean().item(), rel=1e-2)
    assert stats["l1"] == pytest.approx(error.mean().item(), rel=1e-4)


# --- stage 2 ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def trained(pairs_folder, vae_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("editor")
    common = dict(pairs=str(pairs_folder), vae=str(vae_file), batch=4, limit=8, school=3, **SMALL)
    folder = train_editor(EditorConfig(out=str(out / "a"), steps=4, **common))
    return out, common, folder


def test_editor_resumes_to_the_same_numbers(trained, monkeypatch):
    out, common, _ = trained
    monkeypatch.setattr(editor.EditorTrainer, "picture", lambda self: np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(editor.EditorTrainer, "export", lambda self, out: None)
    train_editor(EditorConfig(out=str(out / "b"), steps=4, max_time=0.0, **common))
    train_editor(EditorConfig(out=str(out / "b"), steps=4, resume=True, **common))
    a, b = (torch.load(out / k / "checkpoint.pt", weights_only=True)["state"] for k in "ab")
    for part in ("nets", "average"):
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])
    assert (out / "b" / "latents-train.safetensors").is_file()


def test_editor_exports_a_pipeline_that_edits(trained, astronaut):
    from s2flib.stylize import edit

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
    from s2flib.training import engine

    _, common, folder = trained
    pipe = edit_pipeline.load_pipeline("tiny", folder, "cpu")
    cfg = EditorConfig(out=str(tmp_path), init=str(folder), **common | {"vae": str(folder)})
    trainer = editor.EditorTrainer(cfg, engine.make_accelerator("no", cpu=True))
    made = trainer.pipeline()
    for part in ("unet", "vae", "text_encoder"):
        for (name, a), b in zip(getattr(made, part).state_dict().items(), getattr(pipe, part).state_dict().values(),
                                strict=True):
            assert torch.equal(a, b.float()), (part, name)
    assert made.vae.config.scaling_factor == pipe.vae.config.scaling_factor == trainer.latents.scale


def test_editor_loss_falls(pairs_folder, vae_file, tmp_path):
    """On two pairs, repeated, the weighted error of the prediction drops well below its first value."""
    from s2flib.training import engine

    cfg = EditorConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(vae_file), batch=4, limit=2, school=0,
                       steps=30, lr=2e-3, **SMALL)
    trainer = editor.EditorTrainer(cfg, engine.make_accelerator("no", cpu=True))
    losses = [trainer.step()["loss"] for _ in range(18)]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])
    assert all(np.isfinite(losses)) and "val_nothing_done" in trainer.validate()


def test_decoded_guesses_are_compared_in_the_last_part(pairs_folder, vae_file, tmp_path, monkeypatch):
    """The distance is 0 for the truth, falls by its own gradient, and never moves the decoder."""
    from s2flib.training import engine

    cfg = EditorConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(vae_file), batch=4, limit=4, school=0,
                       steps=4, lpips_from=0.5, lambda_lpips=1.0, **SMALL)
    trainer = editor.EditorTrainer(cfg, engine.make_accelerator("no", cpu=True))
    decoder = {k: v.clone() for k, v in trainer.vae.state_dict().items()}
    assert ["lpips" in trainer.step() for _ in range(4)] == [False, False, True, True]
    assert all(torch.equal(v, decoder[k]) for k, v in trainer.vae.state_dict().items())
    monkeypatch.setattr(editor, "drop_conditions", lambda texts, picture, u, share: (texts, picture * 0))
    assert set(trainer.step()) == {"loss", "error"} and trainer.done == 5          # no picture left to compare
    x0 = trainer.latents.z[0, :2, 1].float() * trainer.latents.scale
    guess = (x0 + torch.randn_like(x0)).requires_grad_()
    assert trainer.decoded_distance(x0, x0).item() == pytest.approx(0, abs=1e-6)
    far = trainer.decoded_distance(guess, x0)
    slope, = torch.autograd.grad(far, guess)
    step = 0.02 * slope / slope.norm()
    assert trainer.decoded_distance((guess - step).detach(), x0) < far
    fall = (far - trainer.decoded_distance((guess - step).detach(), x0)) / 0.02
    assert fall.item() == pytest.approx(slope.norm().item(), rel=0.1)


def test_mirrored_latents_are_those_of_the_mirrored_pair(vae_file):
    vae = build_vae().eval()
    vae.load_state_dict(load_tensors(vae_file, editor_vae.KIND))
    before = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[:, :, 8:16, 8:16] = 0
    made = editor.encode_pairs(vae, before, after)
    assert made.z.shape == (2, 2, 2, 16, 4, 4) and made.change.shape == (2, 4, 4)
    assert made.change[0, 1, 1] > 0.1 and made.change[0, 3, 3] == 0
    again = editor.encode_pairs(vae, before.flip(3), after.flip(3))
    assert torch.equal(made.z[1], again.z[0])
    assert made.z[0, :, 0].float().std() * made.scale == pytest.approx(1, rel=1e-3)


def test_training_refuses_what_cannot_be(pairs_folder, vae_file, tmp_path):
    with pytest.raises(WeightsError, match="--stage vae"):
        train_editor(EditorConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(tmp_path / "none.safetensors")))
    with pytest.raises(S2FError, match="v_prediction"):
        train_editor(EditorConfig(out=str(tmp_path), pairs=str(pairs_folder), vae=str(vae_file), prediction="x",
                                  **SMALL))


def test_a_decoder_for_other_latents_is_refused(trained, tmp_path):
    torch.manual_seed(5)
    other = save_safetensors(tmp_path / "vae.safetensors", build_vae().state_dict(),
                             {"kind": editor_vae.KIND, "preset": "tiny"}, half=False)
    with pytest.raises(WeightsError, match="another encoder"):
        editor.use_decoder(trained[2], other)
    with pytest.raises(S2FError, match="encoder"):
        train_vae(VaeConfig(out=str(tmp_path / "d"), decoder_only=True, **SMALL))


def test_command_trains_all_stages_and_lists_its_fields(pairs_folder, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli.app, ["train-editor", "--pairs", str(pairs_folder), *map(str, arguments)])

    small = ["--limit", 4, "--cpu", "--mixed-precision", "no", "--set", "vae.photos=false"]
    for field in ("vae.steps=1", "vae.batch=2", "unet.steps=1", "unet.batch=2", "unet.school=1", "decoder.steps=2",
                  "decoder.batch=2", "decoder.photos=false"):
        small += ["--set", field]
    done = run("-o", tmp_path / "run", *small)
    assert done.exit_code == 0, done.output
    pipe = edit_pipeline.load_pipeline("tiny", tmp_path / "run" / "unet" / "pipeline")
    first, last = (load_tensors(tmp_path / "run" / name / "vae.safetensors", editor_vae.KIND)
                   for name in ("vae", "decoder"))
    for key, tensor in pipe.vae.state_dict().items():                 # the encoder of stage 1, the decoder of stage 3
        assert torch.equal(tensor.half(), last[key].half())
        assert torch.equal(first[key], last[key]) or key.startswith(("decoder.", "post_quant_conv."))
    assert not torch.equal(first["decoder.conv_in.weight"], last["decoder.conv_in.weight"])
    assert "focus" in run("-o", tmp_path, "--list").output
    for bad in (["--stage", "x"], ["--set", "steps=3"], ["--set", "vae.nothing=3"], ["-p", "colab"],
                ["--stage", "unet"], ["--stage", "decoder"]):
        refused = run("-o", tmp_path / "other", *bad)
        assert refused.exit_code == 2 and len(refused.output.strip().splitlines()) == 1, refused.output
