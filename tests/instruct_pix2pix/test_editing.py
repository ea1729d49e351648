"""Edits by words: the call, the session, bad input, the command and the panel, with untrained weights."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from editing_stand_in import close, face_fixture, tiny_pipe_fixture, tiny_pipeline_folder_fixture  # noqa: F401  (fixtures)
from PIL import Image
from typer.testing import CliRunner

from s2flib import images
from s2flib.cli import app as cli
from s2flib.errors import ImageError, S2FError, WeightsError
from s2flib.instruct_pix2pix import Cancelled, EditSession, edit, edit_batch, keep_detail
from s2flib.instruct_pix2pix.editing import guidance_schedule
from s2flib.instruct_pix2pix.inputs import OneAtATime, as_array
from s2flib.presets import TINY, Suited

FAST = dict(steps=2)
WORDS = "make the hair blond"


# --- one call ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_picture_and_another_one_another(face, tiny_pipe):
    one, again, other = (edit(face, WORDS, pipe=tiny_pipe, seed=s, **FAST).image for s in (3, 3, 4))
    assert one.shape == (128, 128, 3) and one.dtype == np.uint8
    assert (one == again).all() and not close(one, other)


def test_several_seeds_at_once_equal_each_alone(face, tiny_pipe):
    both = edit(face, WORDS, pipe=tiny_pipe, seed=[3, 9], **FAST)
    assert [e.seed for e in both] == [3, 9]
    assert close(both[1].image, edit(face, WORDS, pipe=tiny_pipe, seed=9, **FAST).image)


def test_a_batch_keeps_order_and_does_not_depend_on_neighbours(face, tiny_pipe):
    flipped = face[:, ::-1].copy()
    made = edit_batch(
        [face, flipped, face], [WORDS, "add glasses", "blue eyes"], seeds=[1, 2, 3], pipe=tiny_pipe, batch=2, **FAST
    )
    assert [e.instruction for e in made] == [WORDS, "add glasses", "blue eyes"]
    assert close(made[2].image, edit(face, "blue eyes", pipe=tiny_pipe, seed=3, **FAST).image)
    assert (made[1].before == flipped).all()


def test_any_form_of_the_same_picture_is_the_same(face, tiny_pipe, tmp_path):
    Image.fromarray(face).save(tmp_path / "face.png")
    forms = [face, Image.fromarray(face), images.to_photo(face, 128), tmp_path / "face.png", str(tmp_path / "face.png")]
    made = [edit(form, WORDS, pipe=tiny_pipe, **FAST).image for form in forms]
    assert all((m == made[0]).all() for m in made)


def test_negative_words_guidance_and_detail_matter(face, tiny_pipe):
    def made(**options):
        return edit(face, WORDS, pipe=tiny_pipe, **(FAST | options)).image

    plain = made()
    assert not (made(negative="brown hair") == plain).all()
    assert not (made(guidance=7.0) == plain).all()
    assert not (made(image_guidance=1.8) == plain).all()
    assert not (made(keep=False) == plain).all()


def test_result_is_marked_synthetic_and_says_how_it_was_made(face, tiny_pipe, tmp_path):
    made = edit(face, WORDS, pipe=tiny_pipe, seed=5, guidance=2.5, negative="a hat", **FAST)
    text = Image.open(made.save(tmp_path / "out.png")).text
    assert text["synthetic"] == "true" and text["instruction"] == WORDS and text["negative"] == "a hat"
    assert (text["seed"], text["steps"], text["guidance"], text["preset"]) == ("5", "2", "2.5", "tiny")
    assert "not the paper's numbers" in text["label"] and len(text["pipeline"]) == 16
    assert len(text["input_sha256"]) == 64
    with pytest.raises(ImageError, match="exists already"):
        made.save(tmp_path / "out.png")
    marked = np.asarray(Image.open(made.save(tmp_path / "marked.png", mark=True)))
    assert marked[-6:, :10].max() == 0


def test_progress_counts_every_step_of_every_batch(face, tiny_pipe):
    seen = []
    common = dict(pipe=tiny_pipe, batch=2, steps=3, progress=lambda i, n: seen.append((i, n)))
    edit_batch([face] * 3, [WORDS] * 3, guidance=2.0, **common)
    assert seen == [(i, 6) for i in (0, 1, 2, 3, 3, 4, 5, 6)]
    seen.clear()
    edit_batch([face] * 3, [WORDS] * 3, guidance=Suited((4.0, 2.0), (0.0,)), **common)  # first unguided, then guided
    assert seen == [(i, 12) for i in (0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12)]


def test_guidance_suits_the_size_of_the_change(face, tiny_pipe):
    """Two pictures in one batch: the one that the unguided edit changes less gets the louder words."""
    pictures, texts = [face, np.full_like(face, 120)], [WORDS, "blue eyes"]
    plain = [
        edit(p, t, pipe=tiny_pipe, guidance=1, image_guidance=1, **FAST).image.astype(float)
        for p, t in zip(pictures, texts, strict=True)
    ]
    moved = [np.abs(a - p).mean() for a, p in zip(plain, pictures, strict=True)]
    assert abs(moved[0] - moved[1]) > 0.5
    made = edit_batch(pictures, texts, pipe=tiny_pipe, guidance=Suited((6.0, 2.0), (sum(moved) / 2,)), **FAST)
    for i, text in enumerate(texts):
        scale = 6.0 if moved[i] < moved[1 - i] else 2.0
        assert made[i].parameters["guidance"] == scale
        assert close(made[i].image, edit(pictures[i], text, pipe=tiny_pipe, guidance=scale, **FAST).image)
    assert isinstance(TINY.edit.guidance, Suited)
    assert edit(face, WORDS, pipe=tiny_pipe, **FAST).parameters["guidance"] in TINY.edit.guidance.scales
    three = Suited((7.0, 3.0, 1.5), (0.2, 2.0))
    assert [three.of(m) for m in (0, 0.1, 0.2, 1.9, 2, 90)] == [7, 7, 3, 3, 1.5, 1.5]
    assert str(three) == ("7 for changes below 0.2 grey levels, 3 for changes below 2 grey levels, 1.5 for larger ones")
    assert str(Suited((4.0,), ())) == "4"


def test_cancel_stops_between_steps(face, tiny_pipe):
    event, seen = threading.Event(), []

    def progress(step, total):
        seen.append(step)
        if step == 2:
            event.set()

    with pytest.raises(Cancelled, match="cancelled"):
        edit(face, WORDS, pipe=tiny_pipe, steps=9, progress=progress, cancel=event)
    assert seen == [0, 1, 2]
    with pytest.raises(Cancelled):
        edit(face, WORDS, pipe=tiny_pipe, cancel=lambda: True, **FAST)


# --- the equation -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_guidance_is_the_papers_equation(face, tiny_pipe):
    """One step of the pipeline from known noise equals Eq. 3 written out, followed by the scheduler's step."""
    pipe, s_t, s_i = tiny_pipe, 4.0, 1.6
    x = images.to_photo(face, 128)[None]
    noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    made = pipe(
        [WORDS],
        image=x / 2 + 0.5,
        num_inference_steps=1,
        guidance_scale=s_t,
        image_guidance_scale=s_i,
        latents=noise.clone(),
        output_type="latent",
    ).images
    pipe.scheduler.set_timesteps(1)
    t = pipe.scheduler.timesteps[0]
    z = noise * pipe.scheduler.init_noise_sigma
    condition = pipe.vae.encode(x).latent_dist.mode()

    def net(picture, words):
        ids = pipe.tokenizer([words], padding="max_length", max_length=32, return_tensors="pt").input_ids
        states = pipe.text_encoder(ids).last_hidden_state
        return pipe.unet(torch.cat([z, picture], 1), t, states).sample

    nothing = torch.zeros_like(condition)
    neither, picture, both = net(nothing, ""), net(condition, ""), net(condition, WORDS)
    guided = neither + s_i * (picture - neither) + s_t * (both - picture)
    assert torch.allclose(made, pipe.scheduler.step(guided, t, z).prev_sample, atol=1e-4)


@torch.no_grad()
def test_text_guidance_acts_within_its_interval_only(face, tiny_pipe):
    """Four steps, t/T = 0.999, 0.749, 0.499, 0.249: an interval around the second one changes s_T there alone."""
    pipe, s_t, s_i = tiny_pipe, 4.0, 1.3
    pipe.scheduler.set_timesteps(4)
    assert guidance_schedule(pipe.scheduler, 4.0, (0.6, 0.8)) == pytest.approx([1, 4, 1, 1], abs=1e-5)
    assert guidance_schedule(pipe.scheduler, 4.0, (0.0, 1.0)) == [4, 4, 4, 4]
    assert guidance_schedule(pipe.scheduler, 1, (0.6, 0.8)) == [1, 1, 1, 1]  # no guidance at all
    assert min(guidance_schedule(pipe.scheduler, 4.0, (0.6, 0.8))) > 1  # else s_I would be left out
    made = edit(face, WORDS, pipe=pipe, steps=4, guidance=s_t, image_guidance=s_i, interval=(0.6, 0.8), keep=False)
    x = images.to_photo(face, 128)[None]
    condition, nothing = pipe.vae.encode(x).latent_dist.mode(), torch.zeros(1, 16, 16, 16)
    z = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))

    def net(picture, words, t):
        ids = pipe.tokenizer([words], padding="max_length", max_length=32, return_tensors="pt").input_ids
        return pipe.unet(torch.cat([z, picture], 1), t, pipe.text_encoder(ids).last_hidden_state).sample

    pipe.scheduler.set_timesteps(4)
    for k, t in enumerate(pipe.scheduler.timesteps):
        neither, picture, both = net(nothing, "", t), net(condition, "", t), net(condition, WORDS, t)
        guided = neither + s_i * (picture - neither) + (s_t if k == 1 else 1.0) * (both - picture)
        z = pipe.scheduler.step(guided, t, z).prev_sample
    theirs = pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs((theirs + 1) * 127.5 - made.image).max() < 2
    assert made.parameters["interval"] == "0.6 0.8"
    everywhere = edit(face, WORDS, pipe=pipe, steps=4, guidance=s_t, image_guidance=s_i, interval=(0, 1), keep=False)
    assert not (everywhere.image == made.image).all()


def test_detail_is_kept_where_nothing_changes_and_dropped_where_much_does():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    rebuilt = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (2,) * 4, mode="replicate"), 5, 1)
    assert torch.equal(keep_detail(x, rebuilt, rebuilt), x)
    after = rebuilt.clone()
    after[..., :32] += 1.0
    out = keep_detail(x, rebuilt, after)
    assert torch.equal(out[..., 40:], x[..., 40:])
    assert torch.allclose(out[..., :28], after[..., :28], atol=1e-5)
    slight = rebuilt + 0.1
    assert (keep_detail(x, rebuilt, slight) - x - 0.1).abs().mean() < 0.06  # the change, on the old detail


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "empty"),
        ("  \n", "empty"),
        (None, "empty"),
        ("12 ?!", "no words"),
        ("hair " * 1000, "shorter"),
        ("x" * 50_000, "shorter"),
        ("сделай волосы светлыми", "English"),
        ("把头发染成金色", "English"),
        ("mach bitte seine Haare heller", "not understood"),
        ("rends ses cheveux noirs", "not understood"),
    ],
)
def test_bad_instructions_are_one_sentence_with_the_mend(face, tiny_pipe, words, message):
    with pytest.raises(S2FError, match=message) as caught:
        edit(face, words, pipe=tiny_pipe, **FAST)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_unknown_words_are_named(face, tiny_pipe):
    notes = edit(face, "make the hair a wheaten blond", pipe=tiny_pipe, **FAST).notes
    assert notes == ("words that are not understood and ignored: wheaten", "understood as: make the hair blond")
    with pytest.raises(S2FError, match="not understood"):
        edit(face, "add an ear of wheat", pipe=tiny_pipe, **FAST)


def test_the_model_gets_what_was_understood(face, tiny_pipe):
    made = edit(face, "I think she was wearing spectacles", pipe=tiny_pipe, **FAST)
    assert made.notes == ("understood as: add glasses",) and made.instruction == "I think she was wearing spectacles"
    assert made.parameters["understood_as"] == "add glasses"
    assert np.array_equal(made.image, edit(face, "add glasses", pipe=tiny_pipe, **FAST).image)


def test_calls_at_the_same_time_share_nothing_but_the_networks(face, tiny_pipe):
    """Two panels on one pipeline, with other steps and guidance: each gets the image that it gets alone."""
    calls = [dict(steps=2, guidance=3.0), dict(steps=5, guidance=7.0), dict(steps=3, guidance=1.5)]
    alone = [edit(face, "add glasses", pipe=tiny_pipe, **call).image for call in calls]
    before = vars(tiny_pipe).get("_guidance_scale")
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda call: edit(face, "add glasses", pipe=tiny_pipe, **call).image, calls * 2))
    for got, wanted in zip(together, alone * 2, strict=True):
        assert np.abs(got.astype(int) - wanted).max() <= 1
    assert vars(tiny_pipe).get("_guidance_scale") == before, "the pipeline itself is unchanged"


def test_a_tokenizer_serves_several_threads(tiny_pipe):
    """A CLIP tokenizer shared as it is mixes up padded and unpadded calls within a few hundred."""
    longest = 32

    def lengths(padding) -> set[int]:
        tokenizer = OneAtATime(tiny_pipe.tokenizer)
        call = dict(padding=padding, max_length=longest, truncation=True)
        return {len(tokenizer("add glasses", **call).input_ids) for _ in range(500)}

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lengths, [False, "max_length"] * 2))
    assert made == [{4}, {longest}] * 2
    assert OneAtATime(tiny_pipe.tokenizer).model_max_length == tiny_pipe.tokenizer.model_max_length


def test_two_wishes_become_two_edits_of_a_session(face, tiny_pipe):
    with pytest.raises(S2FError, match="2 wishes: give them one after the other, 'make the eyes blue' and"):
        edit(face, "blue eyes and brown hair", pipe=tiny_pipe, **FAST)
    session = EditSession(face, pipe=tiny_pipe, **FAST)
    session.chain(["blue eyes and brown hair", "add glasses"])
    assert session.instructions == ["make the eyes blue", "make the hair brown", "add glasses"]
    with pytest.raises(S2FError, match="scar"):
        session.chain(["add glasses", "add a scar"])
    assert len(session.history) == 3, "all are read before the first edit"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"guidance": 0.5}, "guidance"),
        ({"guidance": 99}, "guidance"),
        ({"image_guidance": 0.2}, "image_guidance"),
        ({"guidance": 1, "image_guidance": 1.5}, "no effect"),
        ({"guidance": Suited((40.0, 2.0), (1.0,))}, "guidance"),
        ({"guidance": Suited((4.0, 0.5), (1.0,))}, "guidance"),
        ({"guidance": Suited((4.0, 2.0), ())}, "one scale more"),
        ({"guidance": Suited((4, 3, 2), (2.0, 1.0))}, "rising"),
        ({"interval": (0.8, 0.2)}, "interval"),
        ({"interval": (0.2, 1.2)}, "interval"),
        ({"interval": (0.5,)}, "interval"),
        ({"seed": -1}, "seed"),
        ({"seed": []}, "seeds"),
        ({"preset": "huge"}, "unknown preset"),
        ({"negative": "hair " * 100}, "shorter"),
    ],
)
def test_bad_numbers_are_refused(face, tiny_pipe, options, message):
    with pytest.raises(S2FError, match=message):
        edit(face, WORDS, pipe=tiny_pipe, **options)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 2), np.uint8),
        np.zeros((2, 64, 64, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.full((3, 64, 64), float("nan")),
        torch.zeros(2, 64, 64),
    ],
)
def test_bad_pictures_are_image_errors(tiny_pipe, array):
    with pytest.raises(ImageError):
        edit(array, WORDS, pipe=tiny_pipe, **FAST)


def test_bad_files_are_image_errors_and_odd_ones_are_edited(bad_images, tiny_pipe):
    for path in bad_images.unreadable.values():
        with pytest.raises(ImageError):
            edit(path, WORDS, pipe=tiny_pipe, **FAST)
    made = edit_batch(list(bad_images.odd.values()), [WORDS] * len(bad_images.odd), pipe=tiny_pipe, steps=1)
    assert all(m.image.shape == (128, 128, 3) and m.notes for m in made)


def test_grey_and_transparent_arrays_become_rgb():
    assert as_array(np.full((20, 30), 7, np.uint8)).shape == (20, 30, 3)
    clear = np.zeros((20, 30, 4), np.uint8)
    assert (as_array(clear) == 255).all()


def test_memory_that_runs_out_is_a_sentence(face, tiny_pipe, monkeypatch):
    def burst(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(type(tiny_pipe), "__call__", burst)
    with pytest.raises(S2FError, match="memory ran out.*batch=1"):
        edit(face, WORDS, pipe=tiny_pipe, **FAST)


def test_no_weights_says_how_to_get_them(face, monkeypatch, tmp_path):
    monkeypatch.setenv("S2F_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("S2F_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="s2f train-editor"):
        edit(face, WORDS)
    with pytest.raises(WeightsError, match="s2f edit --fetch"):
        edit(face, WORDS, preset="colab")


# --- the command ------------------------------------------------------------------------------------------------


def test_command_edits_in_a_chain_and_refuses_in_one_sentence(tiny_pipeline_folder, face, tmp_path):
    Image.fromarray(face).save(tmp_path / "face.png")
    common = ["--pipeline", str(tiny_pipeline_folder), "--steps", "1"]

    def run(*arguments):
        return CliRunner().invoke(cli.app, ["edit", *map(str, arguments), *common])

    done = run(tmp_path / "face.png", "brown hair", "add glasses", "-o", tmp_path / "out.png")
    assert done.exit_code == 0, done.output
    assert json.loads(Image.open(tmp_path / "out.png").text["history"]) == ["brown hair", "add glasses"]
    assert run(tmp_path / "face.png", "brown hair", "-o", tmp_path / "out.png").exit_code == 2
    assert run(tmp_path / "face.png", "brown hair", "-n", 2, "-o", tmp_path / "many").exit_code == 0
    assert len(list((tmp_path / "many").glob("face_edit_*.png"))) == 2
    for bad in (
        ["face.png"],
        ["face.png", "", "-o", tmp_path / "x.png"],
        [tmp_path / "gone.png", "brown hair", "-o", tmp_path / "x.png"],
        [tmp_path / "face.png", "brown hair"],
    ):
        refused = run(*bad)
        assert refused.exit_code == 2 and refused.output.count("\n") == 1, refused.output
