"""Verbs that take a config's fields, which are too many for argparse: `--section.field VALUE`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from fastddpm.config import RunConfig, help_text, load_config, load_config_of, to_yaml
from fastddpm.studies.augmentation.settings import GainConfig
from fastddpm.studies.dcgan.settings import DCGANConfig
from fastddpm.studies.paper.settings import ReproductionConfig

DEFAULT_CONFIG = "quickstart"


def train_command(arguments: Sequence[str]) -> None:
    """`fastddpm train [--config FILE] [--dry_run] [--section.field VALUE ...]`; without arguments, the demo."""
    path, overrides, dry_run = parse_train_arguments(arguments)
    config = load_config(path, overrides)
    if dry_run:
        print(to_yaml(config), end="")
        print(_forecast(config), end="")
        return
    from fastddpm.training import train

    train(config)


def dcgan_command(arguments: Sequence[str]) -> None:
    """`fastddpm dcgan [--config FILE] [--section.field VALUE ...]`: train the baseline."""
    path, overrides, dry_run = parse_train_arguments(arguments, DCGAN_USAGE, "dcgan-mnist", DCGANConfig)
    config = load_config_of(DCGANConfig, path, overrides)
    if dry_run:
        print(to_yaml(config), end="")
        return
    from fastddpm.studies.dcgan.training import train_dcgan

    train_dcgan(config)


def ingest_command(arguments: Sequence[str]) -> None:
    """`fastddpm ingest [SOURCE] [--out FOLDER] [--data.field VALUE ...]`: read images in, and say what they are."""
    rest = list(arguments)
    source = {"data.source": rest.pop(0)} if rest and not rest[0].startswith("-") else {}
    path, overrides, _ = parse_train_arguments(rest, INGEST_USAGE, config=None)
    out = overrides.pop("out", None)
    config = load_config(path, {"output_dir": "runs/none", **source, **overrides})
    from fastddpm.data import load_splits, summary, summary_lines

    splits = load_splits(config.data, seed=config.seed)
    print("\n".join(summary_lines(summary(splits))))
    if out is not None:
        from fastddpm.training.folder import write_data_report

        write_data_report(splits, Path(out))
        print(f"counts: {Path(out, 'data.json')}  pictures: {Path(out, 'data.png')}")


def reproduce_command(arguments: Sequence[str]) -> None:
    """`fastddpm reproduce [NAME] [--source SOURCE] [--budget TIME] [--field VALUE ...]`: the paper, measured."""
    rest = list(arguments)
    name = None
    if rest and not rest[0].startswith("-"):
        if rest[0] not in REPRODUCED:
            raise ValueError(f"got {rest[0]!r}; wanted {', '.join(REPRODUCED)}, or --config FILE")
        name = f"reproduce-{rest.pop(0)}"
    path, overrides, dry_run = parse_train_arguments(rest, REPRODUCE_USAGE, name, ReproductionConfig)
    if path is None:
        raise ValueError(f"wanted what to reproduce: {', '.join(REPRODUCED)}, or --config FILE")
    config = load_config_of(ReproductionConfig, path, overrides)
    if dry_run:
        print(to_yaml(config), end="")
        return
    from fastddpm.studies.paper.reproduce import reproduce

    reproduce(config)


def gain_command(arguments: Sequence[str]) -> None:
    """`fastddpm evaluate augmentation [--source SOURCE] [--out FOLDER] [--field VALUE ...]`: does augmentation pay?"""
    path, overrides, dry_run = parse_train_arguments(arguments, GAIN_USAGE, "gain-mnist", GainConfig)
    out = overrides.pop("out", None)
    config = load_config_of(GainConfig, path, overrides if out is None else {"output_dir": out, **overrides})
    if dry_run:
        print(to_yaml(config), end="")
        return
    from fastddpm.studies.augmentation.gain import evaluate_augmentation

    evaluate_augmentation(config)


COMMANDS = {
    "train": train_command,
    "ingest": ingest_command,
    "dcgan": dcgan_command,
    "reproduce": reproduce_command,
    "evaluate augmentation": gain_command,
}


def parse_train_arguments(
    arguments: Sequence[str], usage: str = "", config: str | None = DEFAULT_CONFIG, kind: type = RunConfig
) -> tuple[str | None, dict[str, str], bool]:
    """(config path, dotted overrides, dry_run) of `train`'s arguments; `--name value` and `--name=value` are the same.

    Raises: ValueError: an argument that is no option, or an option without a value.
    """
    path, overrides, dry_run = config, {}, False
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            print((usage or TRAIN_USAGE) + help_text(kind))
            sys.exit(0)
        if word == "--dry_run":
            dry_run = True
            continue
        if not word.startswith("--"):
            raise ValueError(f"got {word!r}; wanted --config FILE, --dry_run or --section.field VALUE")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"--{name} has no value; write --{name} VALUE")
            value = rest.pop(0)
        if name == "config":
            path = value
        else:
            overrides[name] = value
    return path, overrides, dry_run


def _forecast(config: RunConfig) -> str:
    """What a run would be: parameters, images, expected peak memory."""
    from fastddpm.data import load_splits
    from fastddpm.training.microbatch import forecast
    from fastddpm.training.network import build_unet, input_shape

    splits = load_splits(config.data, seed=config.seed)
    unet = build_unet(config, splits)
    count = sum(parameter.numel() for parameter in unet.parameters())
    shapes = ["x".join(map(str, shape)) for shape in (splits.train.image_shape, input_shape(config, splits))]
    crops = f", in crops of {shapes[1]}" if config.train.random_crop else ""
    return (
        f"# {count:,} parameters; {len(splits.train):,} training images of {shapes[0]}{crops}\n"
        f"# {forecast(config, unet, splits)}\n"
    )


TRAIN_USAGE = """usage: fastddpm train [--config FILE] [--dry_run] [--section.field VALUE ...]
       accelerate launch train.py [the same options]

Train on your images, go on where a run stopped, save a pipeline for diffusers and draw its pictures.
Without arguments: --config quickstart, real digits on a CPU in five to eleven minutes.

  --config FILE   a YAML file, or the name of a packaged one
  --dry_run       print the resolved config, the number of parameters and the expected peak memory, and stop
"""


DCGAN_USAGE = """usage: fastddpm dcgan [--config FILE] [--dry_run] [--section.field VALUE ...]

Train a DCGAN, which the paper compares with, on the same data; go on where a run stopped, save, draw samples.png.
`fastddpm sample` and `evaluate` take its folder as they take a DDPM's. Without arguments: --config dcgan-mnist.

  --config FILE   a YAML file, or the name of a packaged one
  --dry_run       print the resolved config, and stop
"""


REPRODUCED = ("mnist", "colour64", "celeba64")
REPRODUCE_USAGE = """usage: fastddpm reproduce mnist|colour64|celeba64 --source SOURCE [--budget 60m] [--field VALUE]

Train the paper's model and a DCGAN on your images, draw the paper's figures, put a number, a control and a verdict
beside each of its claims: report.html and report.json. Started again, it goes on where it was.

  --config FILE   a YAML file instead of a packaged one
  --dry_run       print the resolved config, and stop
"""


GAIN_USAGE = """usage: fastddpm evaluate augmentation --source SOURCE [--out FOLDER] [--config FILE] [--field VALUE ...]

Does augmentation pay? A small classifier learns from (a) a few labelled images, (b) with classic augmentation, (c) with
drawn ones beside them, (d) with both, always for as many steps, and is tested on held-out images: gain.html and
gain.json, with intervals over seeds. Started again, it goes on where it was.

  --source SOURCE  labelled images, as data.source
  --out FOLDER     as --output_dir
  --config FILE    a YAML file, or the name of a packaged one; left out: gain-mnist
  --dry_run        print the resolved config, and stop
"""


INGEST_USAGE = """usage: fastddpm ingest [SOURCE] [--out FOLDER] [--config FILE] [--data.field VALUE ...]

Read images in as training would, name every bad file, and say what was found: counts, sizes, modes, labels, copies.
Training then starts at once, because what was read in stays.

  SOURCE          as data.source
  --out FOLDER    write the report there: data.json, and data.png with a sheet of images
  --config FILE   a YAML file, or the name of a packaged one
"""
