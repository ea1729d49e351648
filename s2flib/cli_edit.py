"""``s2f edit``, ``s2f train-editor`` and ``s2f evaluate-editor``: edits by words."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Annotated

import typer

from s2flib.cli_options import MaxTimeOption, OverwriteOption, PresetOption, seconds
from s2flib.cli_train import parse_pair, unfinished
from s2flib.errors import S2FError

STAGES = ("vae", "unet", "decoder", "all")
SHARES = {"vae": 0.35, "unet": 0.5, "decoder": 0.15}         # of --max-time, when all are trained
PairsOption = Annotated[
    Path, typer.Option("--pairs", metavar="DIR", help="A folder with edits.zip and edits.csv (s2f render --edits).")
]
PipelineOption = Annotated[
    Path | None, typer.Option("--pipeline", metavar="DIR", help="A pipeline of your own, in diffusers' layout.")
]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps; default: the preset's.")]
GuidanceOption = Annotated[float | None, typer.Option(help="How strictly the text is obeyed, from 1.")]
ImageGuidanceOption = Annotated[float | None, typer.Option(help="How closely the picture is kept, from 1.")]
IntervalOption = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Noise levels, 0 to 1, at which --guidance acts; default: the preset's."),
]


def edit(
    image: Annotated[Path | None, typer.Argument(metavar="PICTURE", help="A face (PNG, JPEG, ...).")] = None,
    instructions: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORDS", help="What to change, quoted; several are done one after the other."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DEST", help="A picture's name, or a folder with --n.")
    ] = None,
    preset: PresetOption = "tiny",
    pipeline: PipelineOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    image_guidance: ImageGuidanceOption = None,
    interval: IntervalOption = None,
    negative: Annotated[str | None, typer.Option(metavar="WORDS", help="What to steer away from.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise; the same seed gives the same picture.")] = 0,
    n: Annotated[int, typer.Option("--n", "-n", help="Results, with seeds from --seed on.", min=1)] = 1,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the published pipeline first (2 GB).")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Draw a visible SYNTHETIC strip into every picture.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Change a face by words: s2f edit face.png "make the hair blond" "add glasses" -o out.png.

    Under tiny any picture is edited as its middle square at 128 px. Every result says in its metadata that it is
    synthetic and how it was made.
    """
    from s2flib.stylize import EditSession
    from s2flib.stylize.inputs import as_array
    from s2flib.stylize.pipeline import fetch_published, load_pipeline

    if fetch:
        typer.echo(f"published pipeline: {fetch_published()}")
        if image is None:
            return
    if image is None or not instructions:
        raise S2FError("name a picture and an instruction, such as s2f edit face.png 'make the hair blond' -o out.png.")
    if out is None:
        raise S2FError("editing needs a place for its result: add --out FILE.png (a folder with --n).")
    stem = image.stem
    files = [out] if n == 1 and out.suffix else [out / f"{stem}_edit_{i + 1}.png" for i in range(n)]
    if n > 1 and out.suffix:
        raise S2FError(f"{n} results do not fit into {out}: give a folder.")
    for path in files:
        if path.exists() and not overwrite:
            raise S2FError(f"{path} exists already: choose another name, or add --overwrite.")
    array = as_array(image)                                # a bad picture is refused before weights are read
    pipe = load_pipeline(preset, pipeline)
    for i, path in enumerate(files):
        session = EditSession(array, preset, pipe=pipe, steps=steps, guidance=guidance, image_guidance=image_guidance,
                              interval=interval, negative=negative)
        for text in instructions:
            made = session.apply(text, seed=seed + i)
            for note in (session.notes if i == 0 and len(session.history) == 1 else ()) + made.notes:
                typer.echo(f"  {note}")
        session.save(path, overwrite, mark)
        typer.echo(f"{image}: {' + '.join(instructions)} (seed {seed + i}) -> {path}")


def evaluate_editor(
    pairs: PairsOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for tables and figures.")],
    pipeline: PipelineOption = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The edit judge; default: the shipped one.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="val or test.")] = "test",
    grid: Annotated[
        int, typer.Option(metavar="N", help="Measure the grid of both guidances on N validation pairs first.", min=0)
    ] = 0,
    faces: Annotated[int, typer.Option(metavar="N", help="Also sketch, draw and edit N faces.", min=0)] = 24,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    image_guidance: ImageGuidanceOption = None,
    interval: IntervalOption = None,
    keep: Annotated[bool, typer.Option(help="Keep the input's own detail where nothing changes.")] = True,
    limit: Annotated[int | None, typer.Option(help="Measure only the first pairs.", min=1)] = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure edits on held-out people and phrasings: success per kind, distance to the true edit, ID drift, time.

    With --grid the text guidance is chosen on validation pairs and used for the rest (unless given). Last, the true
    edits' latents are decoded and measured alike: what the autoencoder lets through. Writes edits.csv,
    edits.png, phrasings.csv, grid.png, faces.png and run.json.
    """
    from s2flib import runs, weights
    from s2flib.datasets import open_dataset
    from s2flib.evaluation import Judges
    from s2flib.plotting import save_figure
    from s2flib.stylize import report
    from s2flib.stylize.judge import load_edit_judge
    from s2flib.stylize.pairs import EditPairs
    from s2flib.stylize.pipeline import load_pipeline
    from s2flib.stylize.scores import measure, same_person_level

    if preset != "tiny":
        raise S2FError(f"edit pairs are measured at 128 px: preset {preset} is not supported, use tiny.")
    if (out / "run.json").exists() and not overwrite:
        raise S2FError(f"{out} holds run.json already: choose another folder, or add --overwrite.")
    config = dict(pairs=pairs, pipeline=pipeline, split=split, grid=grid, steps=steps, guidance=guidance,
                  image_guidance=image_guidance, interval=interval, keep=keep, limit=limit)
    record = runs.run_record(preset, config, seed)
    pipe, reader, judges = load_pipeline(preset, pipeline), load_edit_judge(judge), Judges.of(preset)
    held_out, found = EditPairs(pairs, split, limit=limit), {}
    if grid:
        points = report.guidance_grid(pipe, EditPairs(pairs, "val", limit=grid), reader, judges, steps=steps,
                                      interval=interval, progress=True)
        suited, expected = report.choose_suited(points)
        guidance = guidance or suited
        found["grid"] = [report.plain(p) for p in points]
        found["chosen"] = report.plain(expected) | suited._asdict()
        save_figure(report.grid_figure(points, suited=(suited, expected)), out / "grid.png", overwrite)
        typer.echo(f"on {grid} validation pairs: text guidance {suited}, image guidance 1: "
                   f"{100 * expected.success:.1f} % succeed, distance {100 * expected.lpips_gain:.1f} % below doing "
                   "nothing")
    editor = report.pipeline_editor(pipe, preset, seed, steps=steps, guidance=guidance, image_guidance=image_guidance,
                                    interval=interval, keep=keep)
    scores = measure(editor, held_out, reader, judges, progress=True)
    report.save_report(out, scores, preset, overwrite)
    ceiling = measure(report.true_latents(pipe, held_out), held_out, reader, judges)
    level = same_person_level(open_dataset(preset, "test"), judges.identity)
    kept, gain = scores.similarity_kept(), scores.lpips_gain()
    found |= {"table": report.records(scores), "phrasings": report.by_phrasing(scores), "lpips_gain": gain._asdict(),
              "similarity_kept": kept._asdict(), "same_person_level": level._asdict(), "skipped": scores.skipped,
              "true_latents": {"table": report.records(ceiling), "lpips_gain": ceiling.lpips_gain()._asdict()}}
    for row in report.records(scores):
        typer.echo(f"{row['kind']:12s} success {100 * row['success']:5.1f} %  strict {100 * row['strict']:5.1f} %  "
                   f"ceiling {100 * row['ceiling']:5.1f} %  floor {100 * row['floor']:5.1f} %  n {row['n']}")
    typer.echo(f"distance to the true edit: {report.gain_in_words(gain)}; similarity before/after "
               f"{kept.value:.3f}, two real renders of one person {level.value:.3f} "
               f"(ratio {kept.value / level.value:.2f})")
    typer.echo(f"with the true edits' latents {100 * ceiling.overall().value:.1f} % would succeed, at a distance of "
               f"{report.gain_in_words(ceiling.lpips_gain())}: what the autoencoder lets through")
    if faces:
        made = report.edit_generated(weights.load_psp(preset), open_dataset(preset, "test"), editor, reader,
                                     judges.identity, faces, progress=True)
        save_figure(made.figure(), out / "faces.png", overwrite)
        asked = [k for k in range(len(made.instructions)) if (made.success[:, k] == made.success[:, k]).any()]
        found["faces"] = {made.instructions[k]: made.rate(k)._asdict() for k in asked} | {
            "overall": made.rate()._asdict()}
        typer.echo(f"sketch, face, edit: {100 * made.rate().value:.0f} % of edits of generated faces read as asked for")
    runs.write_json(out / "run.json", runs.finish(record, **found), overwrite=overwrite)
    typer.echo(f"results: {out}")


def train_editor(
    pairs: PairsOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for all stages and the pipeline.")],
    stage: Annotated[
        str, typer.Option(metavar="NAME", help="vae, unet, decoder or all (one after the other).")
    ] = "all",
    vae: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A trained autoencoder; default: OUT/vae/vae.safetensors.")
    ] = None,
    preset: PresetOption = "tiny",
    seed: Annotated[int, typer.Option(help="Of weights, data order, noise and words.")] = 0,
    max_time: MaxTimeOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoints.")] = False,
    precision: Annotated[
        str, typer.Option("--mixed-precision", metavar="KIND", help="auto, no, bf16 or fp16.")
    ] = "auto",
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use only the first pairs.", min=1)] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="A field of a stage's config: vae.steps=4000."),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List both configs' fields and defaults, and stop.")] = False,
) -> None:
    """Train the tiny InstructPix2Pix: autoencoder, UNet with text encoder, the decoder again; export diffusers' layout.

    With --stage all, --max-time is shared: 35 % for the autoencoder, 15 % for the decoder. A stopped or killed run
    goes on with --resume; once the UNet has begun the encoder stays as it is. The result is OUT/unet/pipeline.
    """
    from s2flib.cli_train import describe
    from s2flib.training.editor import EditorConfig, use_decoder
    from s2flib.training.editor import train_editor as train_unet
    from s2flib.training.editor_vae import VaeConfig, train_vae

    classes = {"vae": VaeConfig, "unet": EditorConfig, "decoder": VaeConfig}
    if show:
        typer.echo(f"vae and decoder\n{describe(VaeConfig)}\n\nunet\n{describe(EditorConfig)}")
        return
    if stage not in STAGES:
        raise S2FError(f"there is no stage {stage!r}: choose one of {', '.join(STAGES)}.")
    if preset != "tiny":
        raise S2FError(f"preset {preset} edits with the published pipeline: train yours under tiny.")
    given: dict[str, dict] = {name: {} for name in classes}
    for pair in more or []:
        name, dot, rest = pair.partition(".")
        if not dot or name not in given:
            raise S2FError(f"--set {pair!r} names no stage: write vae.FIELD=VALUE, unet.… or decoder.….")
        field, value = parse_pair(rest, typing.get_type_hints(classes[name]), name)
        given[name][field] = value
    time_left, pipeline = seconds(max_time), out / "unet" / "pipeline"
    autoencoder = vae or out / "vae" / "vae.safetensors"

    def config(name: str, **fields):
        share = time_left if time_left is None or stage != "all" else SHARES[name] * time_left
        common = dict(pairs=str(pairs), out=str(out / name), preset=preset, seed=seed, resume=resume,
                      mixed_precision=precision, cpu=cpu, limit=limit, max_time=share)
        return classes[name](**common | fields | given[name])

    if stage == "vae" or stage == "all" and not (vae or (out / "unet" / "checkpoint.pt").exists()):
        typer.echo(f"autoencoder: {train_vae(config('vae'))}{unfinished(out / 'vae')}")
    if stage in ("unet", "all"):
        typer.echo(f"pipeline: {train_unet(config('unet', vae=str(autoencoder)))}{unfinished(out / 'unet')}")
    if stage in ("decoder", "all"):
        decoder = train_vae(config("decoder", init=str(autoencoder), decoder_only=True))
        typer.echo(f"decoder: {decoder}{unfinished(out / 'decoder')}")
        if pipeline.is_dir():
            typer.echo(f"put into {use_decoder(pipeline, decoder)}")
