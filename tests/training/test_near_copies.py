"""One rule for copies: a run, `evaluate`, `augment` and the reproduction say the same of the same images."""

import json

import numpy as np
import pytest
import torch

from fastddpm import cli
from fastddpm.data import load_splits
from fastddpm.data.named_pictures import LabelledImages
from fastddpm.studies.paper import budget
from fastddpm.studies.paper.reproduce import reproduce, runs_of
from fastddpm.training import watch
from fastddpm.verbs.augment.filters import COPY, Filters, copies_of, originals_of
from tests.conftest import class_folders
from tests.studies.paper.test_reproduce import tiny
from tests.training.runs import metrics

COUNT = 60


def blobs(count: int) -> torch.Tensor:
    """Smooth and without symmetry, (count, 1, 16, 16), uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=16, mode="bilinear") * 200
    return (smooth + torch.rand(count, 1, 16, 16, generator=generator) * 40).to(torch.uint8)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A reproduction whose DDPM trained with flips; all its "samples" are training images, mirrored."""
    tmp_path = tmp_path_factory.mktemp("copies")
    source = class_folders(tmp_path / "images", blobs(300), torch.arange(300) % 2)
    settings = {
        "data.num_images": 100, "data.num_held_out": 180, "measure.num_reals": 130, "measure.num_samples": COUNT,
        "ddpm.overrides.train.horizontal_flip": True, "ddpm.overrides.sample.num_images": COUNT,
    }  # fmt: skip
    config = tiny(tmp_path / "out", source, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
        patch.setattr(budget, "LONG_ENOUGH", 0.01)
        ddpm, _ = runs_of(config)
        train = load_splits(ddpm.data, seed=ddpm.seed).train
        mirrored = np.stack([train.image(place)[..., ::-1] for place in range(COUNT)])
        patch.setattr(watch, "draw_samples", lambda *_: mirrored)
        (tmp_path / "out").mkdir()
        np.savez(tmp_path / "out" / "samples-ddpm.npz", images=mirrored[:, 0])
        yield reproduce(config)


def evaluated(reproduced, out, capsys, *words):
    samples, judge = reproduced / "samples-ddpm.npz", reproduced / "judge.safetensors"
    given = ["--features", judge, "--resamples", 0, "--num_threads", 1, "--out", out]
    cli.main([str(word) for word in ("evaluate", samples, f"{reproduced / 'ddpm'}:held_out", *given, *words)])
    return json.loads((out / "evaluation.json").read_text())["memorization"], capsys.readouterr().out


@pytest.mark.slow
def test_mirrored_training_images_are_the_same_copies_for_all_four(reproduced, tmp_path, capsys):
    run = reproduced / "ddpm"
    (page,) = (row for row in metrics(run) if "nearest_verdict" in row)
    of_page = {name.removeprefix("nearest_"): value for name, value in page.items() if name.startswith("nearest_")}
    of_evaluate, _ = evaluated(reproduced, tmp_path / "out", capsys, "--training", f"{run}:train")
    of_paper = json.loads((reproduced / "report.json").read_text())["copies"]
    assert of_paper == {name: of_page[name] for name in of_paper}
    assert of_paper == {name: of_evaluate[name] for name in of_paper}
    assert (of_paper["verdict"], of_paper["num_close"], of_paper["num_samples"]) == ("copies", COUNT, COUNT)
    assert (of_paper["num_compared"], of_paper["num_reals"], of_paper["reals"]) == (100, 180, "held_out")
    assert of_evaluate["mirrored"] == ["horizontal"]
    assert f"Samples look like copies of training images: {COUNT} of {COUNT}" in (run / "report.html").read_text()

    originals = originals_of(str(run), (1, 16, 16))
    assert not isinstance(originals, str)
    data = LabelledImages(originals.pixels[:4], np.zeros(4, dtype=np.int64), ("0",), list("0123"), {})
    filters = Filters(originals, None, copies_of(originals, data, torch.device("cpu")))
    samples = np.load(reproduced / "samples-ddpm.npz")["images"][:, None]
    found = filters.look(samples, [0] * COUNT, [0] * COUNT)
    assert [one.reason for one in found] == [COPY] * COUNT
    assert {one.row["nearest_distance"] for one in found} == {0.0}


@pytest.mark.slow
def test_of_training_images_of_a_source_no_flips_are_known_and_the_record_says_so(reproduced, tmp_path, capsys):
    source = reproduced.parent / "images"
    found, printed = evaluated(reproduced, tmp_path / "out", capsys, "--training", source)
    assert found["mirrored"] is None
    assert found["num_close"] < COUNT / 2, "they are mirrored"
    assert "whether training mirrored its images is not known: mirrored copies were not looked for" in printed


@pytest.mark.slow
def test_the_augment_command_drops_all_60_mirrored_training_images(reproduced, tmp_path, capsys):
    """From timestep 1 hardly anything is denoised: what is drawn of a mirrored training image is that image."""
    samples = np.load(reproduced / "samples-ddpm.npz")["images"]
    data = class_folders(tmp_path / "mirrored", torch.from_numpy(samples[:, None]), torch.arange(COUNT) % 2)
    words = ["augment", reproduced / "ddpm", "--data", data, "--start_timesteps", 1, "--drop_copies", "--any_class"]
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in (*words, "--num_threads", 1, "--out", tmp_path / "out")])
    assert f"the filters leave none of {COUNT} images; see {tmp_path / 'out.png'}" in capsys.readouterr().err
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["counts"] == {"drawn": COUNT, "kept": 0, "label_lost": 0, COPY: COUNT}
