"""The complete evaluation of one encoder, in a folder: Table 1 with baselines and ranks, or only the line-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from s2flib.datasets.faces import FaceDataset, SynthFaces, open_dataset
from s2flib.errors import S2FError
from s2flib.evaluation.baselines import mean_face, nearest_sketch, w_plus_optimisation
from s2flib.evaluation.evaluate import Judges, Predictor, embed_photos, evaluate, psp_predictor
from s2flib.evaluation.lineup import Lineup, lineup
from s2flib.evaluation.table1 import Table, table1
from s2flib.files import write_text
from s2flib.runs import check_seed, finish, result_folder, run_record, write_json
from s2flib.weights.load import load_psp


@dataclass(frozen=True)
class EncoderTest:
    """One encoder and the images it is evaluated on."""

    preset: str = "tiny"
    weights: Path | None = None  # an encoder's file; None: the preset's own
    generator: Path | None = None  # the generator it was trained with; None: the preset's own
    split: str = "test"
    data: Path | None = None  # a data set's folder; None: the preset's own
    limit: int | None = None  # use only the first images
    batch: int = 16
    seed: int = 0  # of the line-up's shuffled control
    lines: bool = False  # line drawings in place of pencil sketches; SynthFaces has them

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def predictor(self) -> Predictor:
        """The encoder as a Predictor; its PSP is ``.psp``."""
        return psp_predictor(load_psp(self.preset, self.weights, self.generator), self.preset, self.device)

    def images(self, split: str | None = None) -> FaceDataset:
        """The images of the test, or of another split of the same data set."""
        images = open_dataset(self.preset, split or self.split, self.data, None if split else self.limit)
        if not self.lines:
            return images
        if not isinstance(images, SynthFaces):
            raise S2FError("only SynthFaces has line drawings: leave out --lines, or choose a rendered data set.")
        return images.with_lines()


def report_table1(
    test: EncoderTest,
    out: Path | None = None,  # None: a new runs/<time>
    baselines: bool = True,  # mean face and nearest sketch as well
    ceiling: int = 0,  # steps of W+ optimisation per photo, the generator's ceiling; 0: none
    ranks: bool = True,  # rank-1/5/10 in a line-up
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Table, Path]:
    """Table 1 of one encoder, and the folder to which it writes table1.{txt,csv,png}, scores files and run.json."""
    check_seed(test.seed)
    record = run_record(test.preset, asdict(test) | dict(baselines=baselines, ceiling=ceiling, ranks=ranks), test.seed)
    folder = result_folder(out, overwrite, "table1.csv")
    predict, images, judges = test.predictor(), test.images(), Judges.of(test.preset, test.device)
    methods: dict[str, Predictor] = {"pSp": predict}
    if baselines:
        train = test.images("train")
        methods |= {"mean face": mean_face(train), "nearest sketch": nearest_sketch(train)}
    if ceiling:
        name = "W+ optimisation (ceiling)"
        methods[name] = w_plus_optimisation(getattr(predict, "psp", None), test.preset, judges.perceptual, ceiling)
    photos = embed_photos(images, judges.identity, test.preset, test.batch, test.device, progress=True)
    rows, rank_rows = {}, {}
    for name, method in methods.items():
        progress(f"measuring {name} on {len(images)} images")
        rows[name] = evaluate(method, images, test.preset, judges, test.batch, device=test.device, progress=True,
                              photo_embeddings=photos)  # fmt: skip
        rows[name].save(folder / f"scores_{name.split(' (')[0].replace(' ', '_')}.npz", overwrite=overwrite)
        if ranks:
            found = lineup(rows[name], images, test.preset, judges.identity, photo_embeddings=photos, seed=test.seed)
            rank_rows = found.rows(name) | rank_rows if name == "pSp" else {name: found.output} | rank_rows
    table = table1(rows, rank_rows or None, seeds=(test.seed,))
    table.save(folder, overwrite=overwrite)
    write_json(folder / "run.json", finish(record, table=table.records), overwrite=overwrite)
    return table, folder


def report_lineup(
    test: EncoderTest,
    out: Path | None = None,  # None: a new runs/<time>
    same_shot: bool = False,  # the sketch's source photo is in the gallery
    overwrite: bool = False,
) -> tuple[Lineup, Path]:
    """The line-up of one encoder, and the folder to which it writes lineup.txt and run.json."""
    check_seed(test.seed)
    record = run_record(test.preset, asdict(test) | dict(same_shot=same_shot), test.seed)
    folder = result_folder(out, overwrite, "lineup.txt")
    found = lineup(test.predictor(), test.images(), test.preset, same_shot=same_shot, batch=test.batch,
                   device=test.device, seed=test.seed, progress=True)  # fmt: skip
    rates = {name: {k: rate._asdict() for k, rate in ranks.rates().items()} for name, ranks in found.rows().items()}
    write_text(folder / "lineup.txt", found.text() + "\n", overwrite)
    write_json(folder / "run.json", finish(record, rates=rates, skipped=found.skipped), overwrite)
    return found, folder
