"""s2f train and s2f sweep: options become a config, and others are refused."""

import dataclasses

import pytest
from commands import refused, s2f

from s2flib.cli import train as cli_train
from s2flib.errors import S2FError


@dataclasses.dataclass(frozen=True)
class Config:
    out: str
    preset: str = "tiny"
    steps: int | None = None
    lr: float = 1.0
    ratio: float | None = None
    cpu: bool = False
    resume: bool = False
    widths: tuple[int, ...] = (1, 2)


def test_config_from_options():
    config = cli_train.build_config(
        Config,
        {"out": "x", "steps": 3, "lr": None, "resume": True},
        ["ratio=0.5", "cpu=true", "widths=3,4,5"],
        "encoder",
    )
    assert config == Config("x", steps=3, ratio=0.5, cpu=True, resume=True, widths=(3, 4, 5))
    assert cli_train.build_config(Config, {"out": "x"}, ["ratio=none"], "encoder").ratio is None


@pytest.mark.parametrize(
    "given, more, message",
    [
        ({"lambda4": 1.0}, [], "--lambda4 does not apply"),
        ({}, ["colour=red"], "is not a field"),
        ({}, ["steps"], "is not a field"),
        ({}, ["steps=many"], "'many'"),
    ],
)
def test_options_that_do_not_fit(given, more, message):
    with pytest.raises(S2FError, match=message):
        cli_train.build_config(Config, {"out": "x"} | given, more, "generator")


@pytest.mark.parametrize("what", list(cli_train.TRAININGS))
def test_every_training_has_a_config_the_options_reach(what):
    config_class, run = cli_train.training(what)
    names = {field.name for field in dataclasses.fields(config_class)}
    assert callable(run) and {"out", "seed", "steps"} <= names
    result = s2f("train", "--what", what, "--list")
    assert result.exit_code == 0 and all(name in result.output for name in names)


def test_train_refusals(tmp_path):
    refused(s2f("train", "--what", "dragon", "-o", tmp_path / "out"), "dragon", "encoder")
    refused(s2f("train"), "--out")
    refused(s2f("train", "-o", tmp_path / "out", "--max-time", "soon"), "soon")
    refused(s2f("train", "-o", tmp_path / "out", "--preset", "huge"), "huge")
    refused(s2f("train", "-o", tmp_path / "out", "--set", "lambda5=1"), "lambda5")
    assert not (tmp_path / "out").exists()


def test_unfinished_training_says_how_to_go_on(tmp_path):
    (tmp_path / "run.json").write_text('{"step": 40, "config": {"steps": 100}}')
    assert "--resume" in cli_train.unfinished(tmp_path) and "40 of 100" in cli_train.unfinished(tmp_path)
    (tmp_path / "run.json").write_text('{"step": 100, "config": {"steps": 100}}')
    assert cli_train.unfinished(tmp_path) == "" == cli_train.unfinished(tmp_path / "elsewhere")


def test_sweep_refusals(tmp_path):
    refused(s2f("sweep", "-o", tmp_path / "out", "--lambdas", "0,much"), "much")
    refused(s2f("sweep", "-o", tmp_path / "out", "--lambdas", "1,10"), "λ4 = 0")
    refused(s2f("sweep", "-o", tmp_path / "out", "--set", "nothing=1"), "nothing")
    assert not (tmp_path / "out").exists()
