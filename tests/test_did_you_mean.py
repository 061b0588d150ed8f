"""Names that people bring, and what they are told."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fastddpm.config import RunConfig, field_names, load_config
from fastddpm.config.borrowed_names import BORROWED
from fastddpm.config.wrong_values import near
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.verbs.augment.request import AugmentRequest
from fastddpm.verbs.sample.request import BlendRequest, SampleRequest

PAGE = Path(__file__).parents[1] / "docs" / "coming-from-train_unconditional.md"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "--train.learning_rate?"),
        ("train.lr", "--train.learning_rate?"),
        ("num_epochs", "--train.num_images_seen? It takes: epochs x number of training images"),
        ("train.epochs", "--train.num_images_seen? It takes: epochs x number of training images"),
        ("resolution", "--data.image_size? It takes: a side in pixels, or [height, width]"),
        ("train_data_dir", "--data.source? It takes: a folder, an archive, a table or a data set"),
        ("train.max_train_steps", "--train.num_images_seen? It takes: steps x train.batch_size"),
        ("train.mixed-precision", "--train.mixed_precision?"),
        ("use_ema", "--train.ema_decay? It takes: such as 0.999; 0: no averaging"),
        ("num_workers", "--train.num_threads? It takes: images are decoded once, before training"),
        ("learning_rate", "--train.learning_rate?"),
        ("micro_batch_size", "--train.micro_batch_size or --sample.micro_batch_size?"),
        ("model.batch_sise", "--train.batch_size?"),
    ],
)
def test_a_name_from_elsewhere_is_told_the_setting_and_the_conversion(name, meant):
    with pytest.raises(ValueError, match=re.escape(f": did you mean {meant}")) as error:
        load_config("quickstart", {name: "1"})
    assert str(error.value).endswith(meant)


def test_every_flag_of_train_unconditional_is_told_the_setting_that_its_page_tells():
    rows = re.findall(r"^\| `--(\w+)` \| (?:`([\w.]+)`|none) \|", PAGE.read_text(), flags=re.MULTILINE)
    assert len(rows) == 45
    names = field_names(RunConfig)
    for flag, setting in rows:
        said = f"did you mean --{flag}?" if flag in names else near(flag, names)
        assert said.startswith(f"did you mean --{setting}"), flag
        assert flag in BORROWED or flag in {name.rpartition(".")[2] for name in names}, flag


def test_every_setting_that_a_borrowed_name_is_told_is_there():
    there = {*field_names(RunConfig), *field_names(GainConfig)}
    for kind in (SampleRequest, BlendRequest, AugmentRequest):
        there |= {field.name for field in fields(kind)}
    assert {setting for told in BORROWED.values() for setting, _ in told} <= there
    assert "see --help" in near("zzzzzz", there)
