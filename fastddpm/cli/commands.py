"""What the verbs of `options` do; each imports what it needs when it runs."""

import argparse
from typing import Any


def sample_command(parsed: argparse.Namespace) -> None:
    """Draw new images from a run, on one process or on all of a launcher. Started again, it goes on where it was."""
    from fastddpm.verbs.sample.samples import SampleRequest, sample

    sample(SampleRequest(**_options_of(parsed)))


def vary_command(parsed: argparse.Namespace) -> None:
    """Noise images to a timestep and denoise them: the later it is, the less alike. Started again, it goes on."""
    from fastddpm.verbs.sample.variations import VariationRequest, vary

    vary(VariationRequest(**_options_of(parsed)))


def cutmix_command(parsed: argparse.Namespace) -> None:
    """Paste a part of one image into another, noise and denoise it. Started again, it goes on where it was."""
    from fastddpm.verbs.sample.blends import BlendRequest, cutmix

    cutmix(BlendRequest(**_options_of(parsed)))


def augment_command(parsed: argparse.Namespace) -> None:
    """Draw new labelled images from labelled images, filter them, and write class folders or Parquet, with the story of
    each image, the counts and a contact sheet. Started again, it goes on where it was."""
    from fastddpm.verbs.augment.augment import augment
    from fastddpm.verbs.augment.request import AugmentRequest, parse_starts

    options = _options_of(parsed)
    augment(AugmentRequest(**{**options, "start_timesteps": parse_starts(options["start_timesteps"])}))


def detect_command(parsed: argparse.Namespace) -> None:
    """Judge images by a model of normal ones: a score and a map each, a threshold from normal images that were not
    trained on, pictures, detection.json and report.html."""
    from fastddpm.verbs.detect.detect import detect
    from fastddpm.verbs.detect.request import DetectRequest

    detect(DetectRequest(**_options_of(parsed)))


def judge_command(parsed: argparse.Namespace) -> None:
    """Train a small network for `evaluate`, where features of photographs mean little: a classifier if there are
    labels, else one that learns without."""
    from fastddpm.verbs.evaluate.train_judge import JudgeRequest, make_judge

    make_judge(JudgeRequest(**_options_of(parsed)))


def evaluate_command(parsed: argparse.Namespace) -> None:
    """FID, KID, precision, recall and copies of samples, with intervals, beside what real images get."""
    from fastddpm.verbs.evaluate.evaluate import EvaluationRequest, evaluate

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
