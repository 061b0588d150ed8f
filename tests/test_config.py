import subprocess
import sys
import time

import pytest
import yaml

from fastddpm.config import (
    RunConfig,
    config_from_dict,
    differences,
    field_names,
    help_text,
    load_config,
    to_yaml,
    value_of,
)

RUN = {"output_dir": "runs/x"}


def load(path=None, **overrides):
    return load_config(path, {**RUN, **{k.replace("__", "."): v for k, v in overrides.items()}})


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {batch_size: 32, learning_rate: 3e-3}\nmodel: {block_out_channels: [8, 16]}\n")
    config = load_config(path, {"train.batch_size": "48"})
    assert config.train.batch_size == 48
    assert config.train.learning_rate == 3e-3
    assert config.model.block_out_channels == (8, 16)
    assert config.output_dir == "runs/mine"


@pytest.mark.parametrize(("text", "value"), [("3e-3", 3e-3), ("1E-4", 1e-4), ("0.5", 0.5), ("2", 2.0)])
def test_numbers_are_read_as_people_mean_them(text, value):
    assert load(train__learning_rate=text).train.learning_rate == value


def test_no_is_a_word_and_a_day_is_a_name():
    assert load_config(None, {"output_dir": "2026-11-23"}).output_dir == "2026-11-23"
    assert load(train__mixed_precision="no").train.mixed_precision == "no"
    assert load(train__compile="true").train.compile is True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.batchsize": "3"}, r"unknown setting train\.batchsize: did you mean --train\.batch_size\?"),
        ({"trian.batch_size": "3"}, r"unknown setting trian: did you mean --train\.batch_size\?"),
        ({"batch_size": "3"}, r"unknown setting batch_size: did you mean --train\.batch_size\?"),
        ({"train.batch_size": "many"}, r"train\.batch_size is 'many' \(str\); wanted int"),
        ({"train.batch_size": "1.5"}, r"train\.batch_size is 1\.5 \(float\); wanted int"),
        ({"train.compile": "1"}, r"train\.compile is 1 \(int\); wanted bool"),
        ({"data.image_size": "big"}, r"data\.image_size is 'big' \(str\); wanted int \| tuple\[int, int\] \| null"),
        ({"model.norm_type": "layer"}, r"model\.norm_type is 'layer' \(str\); wanted 'batch' \| 'group'"),
        (
            {"model.block_out_channels": "[8, a]"},
            r"model\.block_out_channels is 'a' \(str\); wanted tuple\[int, \.\.\.\]",
        ),
        ({"data": "digits"}, r"data is 'digits' \(str\); wanted a section of settings"),
        ({"seed": "1", "seed.x": "3"}, r"--seed\.x: seed is no section; did you mean --seed\?"),
        ({"train.batch_size": "0"}, r"train\.batch_size is 0; it must be at least 1"),
        ({"data.num_held_out": "-1"}, r"data\.num_held_out is -1; it must be at least 0"),
        ({"data.num_held_out": "1.5"}, r"data\.num_held_out is 1\.5; it must be below 1"),
        (
            {
                "data.streaming": True,
                "data.image_size": 8,
                "data.channels": 1,
                "data.num_images": 500,
                "data.num_held_out": 0.1,
            },
            r"data\.num_held_out 0\.1 is a share; wanted a number of images, such as --data\.num_held_out 50",
        ),
        ({"data.augment.turn": -1}, r"data\.augment\.turn is -1; it must be at least 0"),
        ({"data.augment.shift": 1}, r"data\.augment\.shift is 1; it must be below 1"),
        ({"data.augment.probability": 0}, r"data\.augment\.probability is 0; it must be above 0"),
        ({"data.augment.rotation": 3}, r"unknown setting data\.augment\.rotation"),
        (
            {"model.attention_levels": [3]},
            r"model\.attention_levels has 3, and model\.block_out_channels .* has the levels 0, 1, 2: use these",
        ),
        ({"train.max_grad_norm": "0.0"}, r"train\.max_grad_norm is 0\.0; it must be above 0, or null"),
        ({"scheduler.beta_end": "3"}, r"must be 0 < start <= end < 1"),
        ({"train.timestep_focus": "[0.4, 0, 1.5]"}, r"wanted \(center, width > 0, share from 0 to 1\)"),
        ({"model.attention_head_dim": "0"}, r"model\.attention_head_dim is 0; it must be at least 1"),
        (
            {"watch.kid_every_images": "9"},
            r"KID compares features; give a TorchScript file as --watch\.features, or use",
        ),
        ({"watch.features": "x.pt"}, r"watch\.kid_every_images is 0: nothing would use it; say how many images"),
        ({"watch.kid_num_samples": "9"}, r"watch\.kid_num_samples is 9; KID needs at least 10"),
        ({"watch.trackers": "[wandb, wandb]"}, r"name each tracker once"),
        ({"watch.trackers": "[mlflow]"}, r"watch\.trackers is 'mlflow' \(str\); wanted"),
        ({"watch.preview_every_images": "-1"}, r"watch\.preview_every_images is -1; it must be at least 0"),
        ({"train.ema_decay": "1.0"}, r"train\.ema_decay is 1\.0; it must be below 1"),
    ],
)
def test_bad_settings_are_refused_with_the_way_out(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, {**RUN, **overrides})


def test_batch_must_be_a_multiple_of_the_micro_batch():
    with pytest.raises(
        ValueError, match=r"\(100\) must be a multiple of train.micro_batch_size \(16\); use .* 96 or 112"
    ):
        load(train__batch_size="100", train__micro_batch_size="16")
    with pytest.raises(ValueError, match=r"use --train.batch_size 16$"):
        load(train__batch_size="10", train__micro_batch_size="16")


def test_output_dir_is_asked_for():
    with pytest.raises(ValueError, match="output_dir is missing: set it in the config or as --out"):
        load_config(None, {})


def test_unknown_config_names_the_packaged_ones():
    with pytest.raises(ValueError, match=r"no config 'digit': .*mnist-paper, quickstart"):
        load_config("digit")


def test_broken_yaml_names_the_file(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("train: {batch_size: [1")
    with pytest.raises(ValueError, match=r"broken\.yaml is no valid YAML"):
        load_config(path)


def test_resolved_config_reads_back_the_same():
    config = load("quickstart", train__learning_rate="3e-3", model__block_out_channels="[8, 16]")
    assert config_from_dict(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("name", ["quickstart", "mnist-paper"])
def test_packaged_configs_are_valid(name):
    assert load_config(name).output_dir == f"runs/{name}"


def test_paper_config_is_the_papers_experiment():
    config = load_config("mnist-paper")
    assert config.data.num_images == 6000
    assert config.train.num_images_seen == 6000 * 1000
    assert (config.scheduler.num_train_timesteps, config.scheduler.beta_end) == (1000, 0.02)
    assert config.scheduler.clip_sample is False
    assert (config.model.norm_type, config.model.block_type) == ("batch", "paper")


def test_help_names_every_setting_with_its_meaning():
    text = help_text(RunConfig)
    for name in ["out" if name == "output_dir" else name for name in field_names(RunConfig)]:
        line, meaning = text.split(f"--{name}  ")[1].split("\n")[:2]
        assert " = " in line
        assert len(meaning.strip()) > 3, name


def test_differences_say_which_are_harmless():
    found = differences(
        load(), load(train__log_every="7", train__learning_rate="0.5", sample__seed="3", watch__nearest="false")
    )
    assert {(name, harmless) for name, _, _, harmless in found} == {
        ("train.log_every", True), ("train.learning_rate", False), ("sample.seed", True), ("watch.nearest", True),
    }  # fmt: skip


def test_value_of_reads_dotted_names():
    assert value_of(load(), "train.batch_size") == RunConfig(output_dir="x").train.batch_size
    assert value_of(load(), "output_dir") == "runs/x"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["sample", "--help"]])
def test_help_takes_less_than_five_seconds(arguments):
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fastddpm", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert time.perf_counter() - start < 5
    assert "usage: fastddpm" in done.stdout


def test_reading_a_config_imports_no_torch():
    code = "import sys, fastddpm.cli; assert not {'torch', 'diffusers'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_decays_are_one_or_several():
    assert load(train__ema_decay="0").train.ema_decays == (0,)
    assert load(train__ema_decay="[0.99, 0.9999]").train.ema_decays == (0.99, 0.9999)
    config = load(train__ema_decay="[0.99, 0.9999]")
    assert config_from_dict(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize(
    ("decays", "message"),
    [
        ("[]", r"train\.ema_decay is \(\); wanted one decay, or several that differ"),
        ("[0.9, 0.9]", r"train\.ema_decay is \(0\.9, 0\.9\); wanted one decay, or several that differ"),
        ("[0.9, 1.5]", r"train\.ema_decay is 1\.5; it must be below 1"),
        ("[0.9, x]", r"train\.ema_decay is .*; wanted float \| tuple\[float, \.\.\.\]"),
    ],
)
def test_decays_that_make_no_sense_are_refused(decays, message):
    with pytest.raises(ValueError, match=message):
        load(train__ema_decay=decays)


def test_help_keeps_meanings_under_their_settings():
    lines = help_text(RunConfig).splitlines()
    assert all(line.startswith(("  --", " " * 8)) for line in lines)
    assert max(map(len, lines)) < 150


def test_a_mistake_in_a_union_is_said_once():
    with pytest.raises(ValueError, match=r"^train.micro_batch_size is 'x' \(str\); wanted int \| 'auto' \| null$"):
        load(train__micro_batch_size="x")
    with pytest.raises(ValueError, match=r"train.ema_decay is 'x' \(str\); wanted float \| tuple\[float, \.\.\.\]$"):
        load(train__ema_decay="[0.9, x]")
