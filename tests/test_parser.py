"""Words after a verb become a request or a config, or one line of error."""

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from fastddpm.cli.parser import read_words
from fastddpm.cli.table_of_verbs import VERBS
from fastddpm.config import RunConfig, load_config
from fastddpm.config.bounded_types import Count, File, Several, strict


@strict
class Drawn:
    """Draw what is asked for."""

    model: str
    """a run"""
    images: Several[str]
    """files"""
    out: File
    """a folder"""
    known: str | None = None
    """other images; null: none"""
    kinds: Several[Literal["noise", "pixel"]] | None = None
    """of errors; null: all"""
    starts: Several[Count] = (300,)
    """denoising steps left to go"""
    class_label: str | int | None = None
    """a class's name or number; null: each in turn"""
    seed: int = 0
    """of the first image"""
    compile: bool = False
    """other bits than without"""

    def __post_init__(self) -> None:
        if not self.starts:
            raise ValueError("starts is (); wanted at least one")


def draw(*words):
    return read_words(Drawn, words, positionals=("model", "images"))


def option(setting):
    return "out" if setting == "output_dir" else setting


def train(*words):
    return read_words(RunConfig, words, config="quickstart")


def test_a_request_reads_lists_flags_paths_and_text_by_their_types():
    found = draw(
        "m", "a.png", "12", "--out=7", "--kinds", "noise", "pixel", "--compile", "--seed", "-1", "--known", "3"
    )
    assert found == Drawn(
        model="m", images=("a.png", "12"), out=Path("7"), kinds=("noise", "pixel"), compile=True, seed=-1, known="3"
    )


@pytest.mark.parametrize("words", [["50", "100"], ["[50, 100]"], ["[50,100]"]])
def test_a_list_is_words_or_yaml(words):
    assert draw("m", "a", "--out", "o", "--starts", *words).starts == (50, 100)
    assert draw("m", "a", "--starts", *words, "--out", "o").starts == (50, 100)


@pytest.mark.parametrize(("words", "expected"), [([], True), (["true"], True), (["false"], False)])
def test_a_flag_may_say_true_or_false(words, expected):
    assert draw("m", "a", "--out", "o", "--compile", *words).compile is expected


def test_a_class_keeps_the_text_of_its_name():
    label = [
        draw("m", "a", "--out", "o", "--class_label", word).class_label for word in ("scratch", "007", "7", "null")
    ]
    assert label == ["scratch", "007", "7", None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m", "a", "--out", "o", "--sed", "3"], "unknown setting sed: did you mean --seed?"),
        (["m", "a", "--out", "o", "--seed", "three"], "seed is 'three' (str); wanted int"),
        (["m"], "IMAGES and --out are missing; see --help"),
        (
            ["m", "a", "--out", "o", "--kinds", "nois"],
            "kinds is 'nois' (str); wanted tuple['noise' | 'pixel', ...] | null",
        ),
        (["m", "a", "--out", "o", "--seed"], "--seed has no value; write --seed VALUE"),
        (["m", "a", "--out", "o", "--starts", "0"], "starts is 0; it must be at least 1"),
        (["m", "a", "--out", "o", "--starts", "[]"], "starts is (); wanted at least one"),
        (["m", "a", "--out", "o", "--starts", "50", "x"], "starts is 'x' (str); wanted tuple[int, ...]"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    with pytest.raises(ValueError, match=".") as error:
        draw(*words)
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.batchsize", "8"], "unknown setting train.batchsize: did you mean --train.batch_size?"),
        (["--train.micro_batch_size", "big"], "train.micro_batch_size is 'big' (str); wanted int | 'auto' | null"),
        (["--train", "8"], "--train is 8; wanted its settings one by one, as --train.NAME VALUE"),
        (["--train.log_every", "0"], "train.log_every is 0; it must be at least 1"),
        (["--train.max_grad_norm", "0"], "train.max_grad_norm is 0; it must be above 0, or null"),
        (["--train.learning_rate", ".inf"], "train.learning_rate is inf; it must be finite"),
        (["--config"], "--config has no value; write --config FILE"),
        (["fast"], "got 'fast'; wanted --option VALUE"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(words, said):
    with pytest.raises(ValueError, match=".") as error:
        train(*words)
    assert str(error.value) == said


def test_a_file_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {batchsize: 8}\n")
    with pytest.raises(ValueError, match="unknown setting train.batchsize: did you mean --train.batch_size?"):
        train("--config", str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    "given",
    [
        {"train.micro_batch_size": "auto"}, {"train.max_grad_norm": "null"}, {"train.learning_rate": "3e-3"},
        {"train.ema_decay": "0.9"}, {"train.ema_decay": "[0.9, 0.99]"}, {"train.mixed_precision": "no"},
        {"model.block_out_channels": "[4, 8]"}, {"watch.trackers": "[wandb]"}, {"output_dir": "2026-11-23"},
    ],
)  # fmt: skip
def test_words_and_overrides_mean_the_same(given):
    words = [word for name, value in given.items() for word in (f"--{option(name)}", value)]
    assert train(*words) == load_config("quickstart", given)
    assert train(*(f"--{option(name)}={value}" for name, value in given.items())) == load_config("quickstart", given)


def test_help_shows_each_option_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom fastddpm.cli import main\nfrom fastddpm.cli.table_of_verbs import VERBS\n"
        "for verb in VERBS: main([*verb.split(), '--help'])\n"
        "print([name for name in ('torch', 'diffusers', 'numpy', 'datasets', 'gradio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = done.stdout.split("usage: fastddpm ")[1:]
    assert len(shown) == len(VERBS)
    for verb, text in zip(VERBS, shown, strict=True):
        assert text.startswith(f"{verb} ")
        assert ("\n  --out " in text) is (verb not in ("demo", "push", "verify"))
    assert done.stdout.endswith("[]\n")


def test_help_of_all_imports_no_settings():
    code = "import sys\nfrom fastddpm.cli import main\nmain(['--help'])\nprint('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {verb} " in done.stdout for verb in VERBS)
    assert done.stdout.endswith("False\n")
