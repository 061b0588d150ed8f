"""Verbs with a few options each."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from fastddpm.cli.commands import (
    augment_command,
    cutmix_command,
    detect_command,
    evaluate_command,
    judge_command,
    ledger_command,
    push_command,
    sample_command,
    vary_command,
)
from fastddpm.cli.demo import add_demo
from fastddpm.config import SamplerName


def parser_of_verbs(doc: str) -> argparse.ArgumentParser:
    """Of all verbs; those that take a config's fields are only named."""
    parser = argparse.ArgumentParser(prog="fastddpm", description=doc.split("\n")[0])
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
    _add_detect(verbs)
    _add_scoring(verbs)
    _add_push(verbs)
    _add_ledger(verbs)
    add_demo(verbs)
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


def _add_detect(verbs: Any) -> None:
    detect = verbs.add_parser("detect", help="find anomalies in images", description=detect_command.__doc__)
    detect.set_defaults(verb=detect_command)
    _add_model(detect)
    detect.add_argument("images", nargs="+", help="image files, or any data.source, or rows of one: SOURCE#0:8")
    detect.add_argument("--out", type=Path, required=True, help="a folder, for pictures, maps, JSON and a page")
    detect.add_argument(
        "--normal", help="normal images that were not trained on, any data.source; left out: RUN:held_out"
    )
    detect.add_argument("--num_normal", type=int, default=200, help="of them, at most (200)")
    detect.add_argument(
        "--known",
        help="other normal images, to compare with too, any data.source; left out: RUN:train without --normal",
    )
    detect.add_argument("--num_known", type=int, default=800, help="of them, at most; 0: none (800)")
    detect.add_argument("--false_alarms", type=float, help="share of normal images above the threshold (0.05)")
    detect.add_argument(
        "--calibration", type=Path, help="a calibration.safetensors of before, instead of normal images"
    )
    detect.add_argument(
        "--masks", type=Path, help="a folder of masks, named as the images: to measure how well it does"
    )
    detect.add_argument(
        "--kinds",
        nargs="+",
        choices=("noise", "pixel", "feature"),
        help="of errors; left out: all three, and features decide",
    )
    detect.add_argument(
        "--start_timesteps", type=int, nargs="+", metavar="T",
        help="where noise is predicted and features are seen (50 100 200 300 of 1000)",
    )  # fmt: skip
    detect.add_argument("--num_noises", type=int, help="at each of them (4)")
    detect.add_argument(
        "--reconstruct_from", type=int, nargs="+", metavar="T", help="where images are denoised from (200 400 of 1000)"
    )
    detect.add_argument("--scheduler", choices=get_args(SamplerName), help="of reconstructions (ddpm)")
    detect.add_argument("--num_inference_steps", type=int, help="of a reconstruction (10)")
    detect.add_argument("--seed", type=int, help="of noise, the same for all images (0)")
    detect.add_argument(
        "--resamples", type=int, default=200, help="of the bootstrap, with masks; 0: no intervals (200)"
    )
    detect.add_argument("--micro_batch_size", type=int, default=64, help="images of one forward pass (64)")
    detect.add_argument("--num_processes", type=int, help="refuse to start with another number of processes")
    detect.add_argument("--num_threads", type=int, help="CPU threads of a process; left out: its share of the cores")


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
    evaluate = verbs.add_parser(
        "evaluate", help="score images against real ones; or `evaluate augmentation`: does augmentation pay?",
        description=evaluate_command.__doc__,
        epilog="`fastddpm evaluate augmentation` measures what augmentation gains a classifier; see its --help.",
    )  # fmt: skip
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
