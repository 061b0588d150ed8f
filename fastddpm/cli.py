"""The command line of fastddpm: one verb a capability.

Verbs import what they need when they run, so that `--help` and a refused setting take a moment, not seconds.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from fastddpm.config import (
    DCGANConfig,
    ReproductionConfig,
    RunConfig,
    SamplerName,
    help_text,
    load_config,
    load_config_of,
    to_yaml,
)

DEFAULT_CONFIG = "quickstart"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; a mistake of the user's ends with one line and exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, takes_fields = _parser(), bool(given) and given[0] in _BY_FIELDS
    try:
        if takes_fields:  # a config's: too many for argparse
            _BY_FIELDS[given[0]](given[1:])
        else:
            parsed = parser.parse_args(given)
            verb: Callable[[argparse.Namespace], None] = parsed.verb
            verb(parsed)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"fastddpm: error: {_of_rank(_explained(error, takes_fields))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nfastddpm: stopped; the same command goes on from what was kept", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _of_rank(text: str) -> str:
    """What went wrong, and on which of several ranks."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or text.startswith("rank "):
        return text
    return f"rank {os.environ.get('RANK', '0')}: {text}"


def _explained(error: Exception, is_training: bool) -> str:
    """What went wrong and what to do; of the system's own errors, those that people meet."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        places = "--output_dir and --data.cache_dir" if is_training else "--out"
        return (
            f"{where} has no room ({error.strerror}); what was saved before is whole: free some, or put {places} "
            f"on a larger disk, and start again"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return (
            f"{where} is a file, where a folder was wanted ({error.strerror}); move it away, or choose another folder"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        others = "--output_dir, --data.cache_dir or --data.source" if is_training else "--out"
        return (
            f"{where} may not be read or written by this user ({error.strerror}); change its permissions, or choose "
            f"another {others}"
        )
    return str(error)


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
    from fastddpm.baselines.training import train_dcgan

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
        from fastddpm.training.data_report import write_data_report

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
    from fastddpm.reproduction import reproduce

    reproduce(config)


_BY_FIELDS = {
    "train": train_command,
    "ingest": ingest_command,
    "dcgan": dcgan_command,
    "reproduce": reproduce_command,
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


def sample_command(parsed: argparse.Namespace) -> None:
    """Draw new images from a run, on one process or on all of a launcher. Started again, it goes on where it was."""
    from fastddpm.sampling import SampleRequest, sample

    sample(SampleRequest(**_options_of(parsed)))


def vary_command(parsed: argparse.Namespace) -> None:
    """Noise images to a timestep and denoise them: the later it is, the less alike. Started again, it goes on."""
    from fastddpm.sampling import VariationRequest, vary

    vary(VariationRequest(**_options_of(parsed)))


def cutmix_command(parsed: argparse.Namespace) -> None:
    """Paste a part of one image into another, noise and denoise it. Started again, it goes on where it was."""
    from fastddpm.sampling import BlendRequest, cutmix

    cutmix(BlendRequest(**_options_of(parsed)))


def augment_command(parsed: argparse.Namespace) -> None:
    """Draw new labelled images from labelled images, filter them, and write class folders or Parquet, with the story of
    each image, the counts and a contact sheet. Started again, it goes on where it was."""
    from fastddpm.augmentation import AugmentRequest, augment, parse_starts

    options = _options_of(parsed)
    augment(AugmentRequest(**{**options, "start_timesteps": parse_starts(options["start_timesteps"])}))


def judge_command(parsed: argparse.Namespace) -> None:
    """Train a small network for `evaluate`, where features of photographs mean little: a classifier if there are
    labels, else one that learns without."""
    from fastddpm.scoring import JudgeRequest, make_judge

    make_judge(JudgeRequest(**_options_of(parsed)))


def evaluate_command(parsed: argparse.Namespace) -> None:
    """FID, KID, precision, recall and copies of samples, with intervals, beside what real images get."""
    from fastddpm.scoring import EvaluationRequest, evaluate

    evaluate(EvaluationRequest(**_options_of(parsed)))


def ledger_command(parsed: argparse.Namespace) -> None:
    """Write which images each step of a run saw, or will see, and at which timesteps: a JSON row a step."""
    from fastddpm.training.ledger import write_ledger

    print(f"{parsed.out}: {write_ledger(parsed.folder, parsed.out, parsed.first, parsed.last)}")


def push_command(parsed: argparse.Namespace) -> None:
    """Publish the saved model of a run on the Hub: one commit of its own files, nothing else of the run. Or images that
    sample, vary or cutmix wrote, as a data set."""
    from fastddpm.hub import holds_images, push, push_images

    where: dict[str, Any] = {"private": parsed.private, "revision": parsed.revision, "license": parsed.license}
    if holds_images(parsed.folder):
        done = push_images(parsed.folder, parsed.repo_id, **where)
    else:
        done = push(parsed.folder, parsed.repo_id, evaluation=parsed.evaluation, **where)
    print(f"{done.url} ({done.commit}): {'pushed' if done.changed else 'was up to date, no commit was made'}")


def _options_of(parsed: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(parsed).items() if name != "verb"}


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
Without arguments: --config quickstart, real digits on a CPU in some five minutes.

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


INGEST_USAGE = """usage: fastddpm ingest [SOURCE] [--out FOLDER] [--config FILE] [--data.field VALUE ...]

Read images in as training would, name every bad file, and say what was found: counts, sizes, modes, labels, copies.
Training then starts at once, because what was read in stays.

  SOURCE          as data.source
  --out FOLDER    write the report there: data.json, and data.png with a sheet of images
  --config FILE   a YAML file, or the name of a packaged one
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastddpm", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("train", help="train a model on images (see `fastddpm train --help`)", add_help=False)
    verbs.add_parser("dcgan", help="train the baseline (see `fastddpm dcgan --help`)", add_help=False)
    verbs.add_parser("reproduce", help="the paper, measured (see `fastddpm reproduce --help`)", add_help=False)
    verbs.add_parser(
        "ingest", help="read images in and say what they are (see `fastddpm ingest --help`)", add_help=False
    )
    sample = _add_verb(
        verbs,
        "sample",
        sample_command,
        "draw new images",
        seeds="first seed; image i has seed + i",
        without_label="each class in turn",
    )
    sample.add_argument("--num_images", type=int, default=64, help="(64)")
    vary = _add_verb(
        verbs,
        "vary",
        vary_command,
        "draw variations of images",
        seeds="seed of the first variation; the next ones follow",
        without_label="any class",
    )
    _add_inputs(vary)
    vary.add_argument("--num_variations", type=int, default=8, help="of each image and start timestep (8)")
    cutmix = _add_verb(
        verbs,
        "cutmix",
        cutmix_command,
        "blend pairs of images",
        seeds="seed of the first blend; the next ones follow",
        without_label="any class",
    )
    _add_inputs(cutmix)
    cutmix.add_argument(
        "--partners", nargs="+", default=(), metavar="IMAGES",
        help="what is pasted: one for each image, or one for all; left out: for each blend another of the images",
    )  # fmt: skip
    cutmix.add_argument("--num_blends", type=int, default=8, help="of each image and start timestep (8)")
    cutmix.add_argument(
        "--box", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="the partner's part, in pixels"
    )
    cutmix.add_argument("--mask", type=Path, help="the same as a black and white picture; white: the partner's")
    cutmix.add_argument(
        "--alpha", type=float, default=1.0,
        help="without --box and --mask each blend has a box of its own, drawn with lambda ~ Beta(alpha, alpha) (1)",
    )  # fmt: skip
    _add_augment(verbs)
    _add_scoring(verbs)
    _add_push(verbs)
    _add_ledger(verbs)
    return parser


def _add_augment(verbs: Any) -> None:
    augment = verbs.add_parser("augment", help="enlarge a labelled set", description=augment_command.__doc__)
    augment.set_defaults(verb=augment_command)
    _add_model(augment)
    augment.add_argument("data", help="any labelled data.source, or rows of one; or RUN:train, RUN:held_out")
    augment.add_argument("--out", type=Path, required=True, help="a folder, for class folders, or a .parquet file")
    augment.add_argument(
        "--mode", choices=("variations", "cutmix", "samples"), default="variations",
        help="variations of each image; its blends with others, with soft labels; samples of its class (variations)",
    )  # fmt: skip
    augment.add_argument("--num_per_image", type=int, default=1, help="images from each, and start timestep (1)")
    augment.add_argument(
        "--start_timesteps", default="300", metavar="T",
        help="denoising steps left to go: 300; each of some, 100,300; or one of a range for each image, 100:500 (300)",
    )  # fmt: skip
    augment.add_argument("--balance", action="store_true", help="as many of each class as the largest one gets")
    augment.add_argument("--any_class", action="store_true", help="draw variations without their class")
    augment.add_argument("--alpha", type=float, default=1.0, help="of blends: lambda ~ Beta(alpha, alpha) (1)")
    augment.add_argument(
        "--judge", type=Path, help="a classifier of `fastddpm judge`: drop what it gives another label"
    )
    augment.add_argument(
        "--drop_copies", action="store_true", help="drop near-copies of training images and of the data"
    )
    augment.add_argument("--split", help="of data with several; left out: train")
    augment.add_argument("--subset", help="of a data set for `datasets` that has several")
    augment.add_argument("--image_column", help="of a table; left out: the only one that holds images")
    augment.add_argument("--label_column", help="of a table; left out: the only one that holds classes")
    augment.add_argument("--resize", action="store_true", help="make images of other sizes fit, as training does")
    augment.add_argument("--seed", type=int, default=0, help="of the first image; the next ones follow (0)")
    _add_drawing(augment)


def _add_ledger(verbs: Any) -> None:
    ledger = verbs.add_parser("ledger", help="which images each step saw", description=ledger_command.__doc__)
    ledger.set_defaults(verb=ledger_command)
    ledger.add_argument("folder", type=Path, metavar="RUN")
    ledger.add_argument("--out", type=Path, required=True, help="a .jsonl file")
    ledger.add_argument("--first", type=int, default=1, help="step (1)")
    ledger.add_argument("--last", type=int, help="step; left out: the last one of the run")


def _add_push(verbs: Any) -> None:
    push = verbs.add_parser("push", help="publish a run on the Hub", description=push_command.__doc__)
    push.set_defaults(verb=push_command)
    push.add_argument("folder", type=Path, metavar="RUN", help="a finished run, a folder of save_pretrained, or images")
    push.add_argument("repo_id", metavar="USER/NAME", help="made if it is not there")
    push.add_argument("--private", action="store_true", help="only its owner sees it")
    push.add_argument("--revision", help="a branch, made if it is not there; left out: main")
    push.add_argument("--license", help="of the weights, such as apache-2.0; left out: what the card says already")
    push.add_argument(
        "--evaluation", type=Path, metavar="FILE",
        help="an evaluation.json for the card; left out: RUN/evaluation/evaluation.json, if it is there",
    )  # fmt: skip


def _add_scoring(verbs: Any) -> None:
    evaluate = verbs.add_parser("evaluate", help="score images against real ones", description=evaluate_command.__doc__)
    evaluate.set_defaults(verb=evaluate_command)
    evaluate.add_argument("samples", help="any data.source (a folder, .npz, ...), or a run, which is drawn from")
    evaluate.add_argument("reals", help="any data.source; RUN:held_out and RUN:train are a run's own images")
    evaluate.add_argument(
        "--features", type=Path, required=True,
        help="a TorchScript file that makes (B, D) features of uint8 images, or a file of `fastddpm judge`",
    )  # fmt: skip
    evaluate.add_argument("--out", type=Path, required=True, help="a folder for evaluation.json and nearest.png")
    evaluate.add_argument("--training", help="images to look for copies of, as REALS; of a run, its own are known")
    evaluate.add_argument("--num_samples", type=int, default=1_000, help="at most (1000)")
    evaluate.add_argument("--num_reals", type=int, default=10_000, help="at most (10000)")
    evaluate.add_argument("--resamples", type=int, default=200, help="of the bootstrap; 0: no intervals (200)")
    evaluate.add_argument("--seed", type=int, default=0, help="of choices, intervals, and the first sample (0)")
    evaluate.add_argument("--scheduler", choices=get_args(SamplerName), help="of a run's samples; left out: as saved")
    evaluate.add_argument("--num_inference_steps", type=int, help="of a run's samples; all of them if left out")
    evaluate.add_argument("--guidance_scale", type=float, default=1.0, help="of a run's samples; 1: none (1)")
    evaluate.add_argument("--micro_batch_size", type=int, default=64, help="of a run's samples (64)")
    evaluate.add_argument("--num_processes", type=int, help="refuse to start with another number of processes")
    evaluate.add_argument("--num_threads", type=int, help="CPU threads of a process; left out: its share of the cores")
    judge = verbs.add_parser(
        "judge", help="train a small network whose features `evaluate` uses", description=judge_command.__doc__
    )
    judge.set_defaults(verb=judge_command)
    judge.add_argument("source", help="any data.source; RUN:held_out and RUN:train are a run's own images")
    judge.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    judge.add_argument("--unlabelled", action="store_true", help="learn without labels, whether there are some or not")
    judge.add_argument("--num_images", type=int, default=20_000, help="to train on, at most (20000)")
    judge.add_argument("--num_tested", type=int, default=2_000, help="others, for a classifier's accuracy (2000)")
    judge.add_argument("--epochs", type=int, default=5, help="of a classifier (5)")
    judge.add_argument("--num_steps", type=int, default=800, help="without labels (800)")
    judge.add_argument("--seed", type=int, default=0, help="of choice and training (0)")
    judge.add_argument("--num_threads", type=int, help="CPU threads; left out: all cores")


def _add_inputs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "images",
        nargs="+",
        help="image files, or any data.source: a folder, zip, array, table or digits; or rows of one: SOURCE#0:8",
    )
    verb.add_argument(
        "--start_timestep", type=int, nargs="+", default=(300,),
        help="denoising steps left to go, one number or several; 0: the image itself; 1000: any image (300)",
    )  # fmt: skip
    verb.add_argument(
        "--shared_noise", action="store_true", help="noise each image once, and copy it, as in the paper's figures"
    )


def _add_verb(
    verbs: Any, name: str, verb: Callable[[argparse.Namespace], None], summary: str, *, seeds: str, without_label: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=verb.__doc__)
    parser.set_defaults(verb=verb)
    _add_model(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a folder (a PNG an image, and metadata.jsonl), a .npz or .parquet file, or a .png file (one grid)",
    )
    parser.add_argument("--figure", type=Path, help="also one picture of all, a .png file")
    parser.add_argument("--seed", type=int, default=0, help=f"{seeds} (0)")
    parser.add_argument("--class_label", type=int, help=f"one class for all; without it, {without_label}")
    _add_drawing(parser)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a run folder (also one still training), a saved pipeline, or an id on the Hub")


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    """Options of how a network draws."""
    parser.add_argument(
        "--scheduler",
        choices=get_args(SamplerName),
        help="ddpm: the paper's; ddim and dpmsolver++ need fewer steps, and no noise; left out: as saved",
    )
    parser.add_argument("--num_inference_steps", type=int, help="reverse steps; all of them if left out")
    parser.add_argument("--micro_batch_size", type=int, default=64, help="images of one forward pass (64)")
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="further towards the class; 1: none (1)")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="of the network; auto: what the launcher asks for, else fp32, whose bits are those of the pipelines",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; other bits than without")
    parser.add_argument("--num_processes", type=int, help="refuse to start with another number of processes")
    parser.add_argument("--num_threads", type=int, help="CPU threads of a process; left out: its share of the cores")
