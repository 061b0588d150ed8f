"""`fastddpm reproduce` from images to a report, at tiny size: real training, real drawing."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image

from fastddpm import cli
from fastddpm.config import load_config_of
from fastddpm.data.named_pictures import named_images
from fastddpm.studies.paper import budget as lengths
from fastddpm.studies.paper import dcgan_trials
from fastddpm.studies.paper import reproduce as run
from fastddpm.studies.paper.reproduce import check, reproduce, runs_of
from fastddpm.studies.paper.settings import ReproductionConfig
from fastddpm.verbs.sample import all_processes as job
from tests.data.test_celeba import files_by_pixels, inner, make_celeba, names_of
from tests.measures.test_classifier import bars
from tests.training.runs import free_port

TINY = {
    "budget": "1s", "num_threads": 1, "data.num_images": 40, "data.num_held_out": 95,
    "ddpm.overrides.model.block_out_channels": [4, 8], "ddpm.overrides.train.batch_size": 16,
    "ddpm.overrides.sample.num_images": 4, "ddpm.overrides.sample.num_inference_steps": 3,
    "ddpm.overrides.train.num_threads": 1,
    "dcgan.settings": {"narrow": {"train.width": 4, "train.batch_size": 16},
                       "wide": {"train.width": 8, "train.batch_size": 16}},
    "measure.num_reals": 50, "measure.num_samples": 24, "measure.num_from_data": 12, "measure.num_inputs": 5,
    "measure.start_timesteps": [2, 300, 1000], "measure.num_blends": 14, "measure.num_inference_steps": 3,
    "measure.num_judged": 10, "measure.judge_epochs": 1, "measure.judge_steps": 4, "measure.resamples": 20,
}  # fmt: skip


def tiny(folder, source, **settings) -> ReproductionConfig:
    overrides = {**TINY, "output_dir": str(folder), "source": str(source), **settings}
    return load_config_of(ReproductionConfig, "reproduce-mnist", overrides)


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Speed is measured in a moment; images are read into a cache of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "LONG_ENOUGH", 0.01)
        patch.setenv("FASTDDPM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """140 labelled pictures of bars, 16x16, in class folders."""
    folder = tmp_path_factory.mktemp("source")
    for i, (image, label) in enumerate(zip(*bars(140), strict=True)):
        (folder / str(int(label))).mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / str(int(label)) / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A whole reproduction."""
    return reproduce(tiny(tmp_path_factory.mktemp("done") / "out", source))


def record_of(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_every_claim_has_a_number_a_control_and_a_verdict(done):
    claims = record_of(done)["claims"]
    assert [claim["figure"] for claim in claims] == [3, 3, 4, 7, 7, 8, 8, 9, 9]
    for claim in claims:
        assert claim["verdict"] in ("holds", "does not hold", "cannot tell")
        assert re.search(r"\d", claim["measured"])
        assert claim["control"]
        assert claim["settles"]


@pytest.mark.slow
def test_the_record_says_what_was_done(done):
    record = record_of(done)
    planned = json.loads((done / "lengths.json").read_text())
    ddpm, dcgan = record["ddpm"], record["dcgan"]
    assert ddpm["images_seen"] == -(-planned["ddpm"]["num_images_seen"] // 16) * 16
    assert {trial["name"] for trial in dcgan["trials"]} == {"narrow", "wide"}
    best = min(dcgan["trials"], key=lambda trial: trial["fid"])
    assert dcgan["chosen"] == best["name"]
    whole = planned[f"dcgan-{best['name']}"]["num_images_seen"]
    assert best["images_seen"] == max(1, round(whole / 10))
    assert dcgan["images_seen_at_the_end"] == -(-whole // 16) * 16
    assert dcgan["scores"]["fid"] == pytest.approx(min(best["fid"], dcgan["fid_at_the_end"]))
    assert record["config"]["claims"]["least_correlation"] == 0.9
    assert "classifier of 2 classes" in record["features"]["description"]
    assert [mark["start"] for mark in record["dial"]] == [0, 2, 300, 1000]
    assert record["dial"][0]["to_input"]["own"] == 0
    assert record["dial"][0]["same_class"] == 1


@pytest.mark.slow
def test_the_page_carries_its_pictures_and_asks_nothing_of_a_network(done):
    page = (done / "report.html").read_text()
    for number in (3, 4, 7, 8, 9):
        picture = done / f"figure-{number}.png"
        assert Image.open(picture).width > 100
        assert f"Figure {number}" in page
    assert page.count("data:image/png;base64,") == 5
    assert page.count("<svg") >= 3
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "What the numbers do not say" in page


@pytest.mark.slow
def test_what_trains_what_judges_and_what_is_measured_share_no_image(done, source):
    reals = np.load(done / "reals.npz")["images"]
    assert reals.shape == (50, 16, 16)
    files = {np.asarray(Image.open(path)).tobytes() for path in source.rglob("*.png")}
    trained, held_out = (
        [image.tobytes() for image in named_images(f"{done / 'ddpm'}:{split}").images[:, 0]]
        for split in ("train", "held_out")
    )
    used, judging = {image.tobytes() for image in reals}, set(held_out[50:])
    assert used | judging | set(trained) <= files
    assert (len(used), len(judging), len(set(trained))) == (50, 45, 40)
    assert not used & judging
    assert not used & set(trained)
    assert not judging & set(trained)
    assert np.load(done / "dial-0002.npz")["images"].shape == (5 * 2, 16, 16)


@pytest.mark.slow
def test_started_again_it_goes_on_with_what_is_there(done, source):
    before = {path: path.stat().st_mtime_ns for path in done.glob("*.npz")}
    record = record_of(done)
    weights = (done / "ddpm" / "samples.png").stat().st_mtime_ns
    reproduce(tiny(done, source, title="<b>again"))
    assert {path: path.stat().st_mtime_ns for path in done.glob("*.npz")} == before
    assert (done / "ddpm" / "samples.png").stat().st_mtime_ns == weights
    assert record_of(done)["claims"] == record["claims"]
    page = (done / "report.html").read_text()
    assert "<b>" not in page
    assert page.count("&lt;b&gt;again") == 3, "title, heading, settings"


@pytest.mark.slow
def test_a_stopped_reproduction_ends_as_an_unbroken_one(done, source, tmp_path, monkeypatch):
    """Of the same lengths: stopped after a trial of the DCGAN, and started again."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    shutil.copy(done / "lengths.json", folder / "lengths.json")
    original, calls = dcgan_trials.train_dcgan, []

    def stopping(config):
        calls.append(config)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(config)

    monkeypatch.setattr(dcgan_trials, "train_dcgan", stopping)
    with pytest.raises(KeyboardInterrupt):
        reproduce(tiny(folder, source))
    assert not (folder / "report.json").exists()
    reproduce(tiny(folder, source))
    assert record_of(folder)["claims"] == record_of(done)["claims"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["lengths", "train", "save_judge", "see", "draw", "measure"])
def test_stopped_at_any_stage_it_goes_on(done, source, tmp_path, monkeypatch, stage):
    """Stopped in the middle of a drawing, too: the parts of the file that were drawn are gone on with."""
    folder = tmp_path / "stopped"
    folder.mkdir()
    shutil.copy(done / "lengths.json", folder / "lengths.json")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stage == "draw":
            patch.setattr(job, "draw_micro_batch", stop)
        else:
            patch.setattr(run, stage, stop)
        with pytest.raises(KeyboardInterrupt):
            reproduce(tiny(folder, source))
    assert not (folder / "report.json").exists()
    reproduce(tiny(folder, source, num_threads=2 if stage == "measure" else 1))  # all is drawn: threads do not matter
    assert {claim["claim"] for claim in record_of(folder)["claims"]} == {c["claim"] for c in record_of(done)["claims"]}


def test_a_mistake_that_is_mended_leaves_the_folder_free(source, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(ValueError, match="there is no"):
        reproduce(tiny(folder, tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="inceptoin.pt is no file"):
        reproduce(tiny(folder, source, features=str(tmp_path / "inceptoin.pt")))
    assert not folder.exists()


def test_too_few_images_for_the_features_are_warned_of_at_once(source, tmp_path, caplog):
    network = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), ToFloat(), torch.nn.Linear(768, 64)))
    torch.jit.save(network, tmp_path / "f.pt")
    check(tiny(tmp_path / "out", source, features=str(tmp_path / "f.pt")), PartialState(cpu=True))
    assert "12 images are scored in 64 features, too few for a FID: figures 3 and 4" in caplog.text


class ToFloat(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


@pytest.mark.slow
def test_two_processes_measure_what_they_draw_together(source, tmp_path):
    folder = tmp_path / "out"
    script = tmp_path / "two.py"
    script.write_text(
        "from fastddpm.config import load_config_of\n"
        "from fastddpm.studies.paper import budget\n"
        "from fastddpm.studies.paper.reproduce import reproduce\n"
        "from fastddpm.studies.paper.settings import ReproductionConfig\n"
        "budget.LONG_ENOUGH = 0.01\n"
        f"settings = {dict(TINY, output_dir=str(folder), source=str(source))!r}\n"
        "reproduce(load_config_of(ReproductionConfig, 'reproduce-mnist', settings))\n"
    )
    words = ["--nproc_per_node", "2", "--master_port", str(free_port()), str(script)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = record_of(folder)
    assert len(record["claims"]) == 9
    assert record["num_processes"] == 2
    assert done.stdout.count("DCGAN 1 of 2") == 1


@pytest.mark.slow
def test_another_reproduction_is_refused_and_nothing_is_lost(done, source):
    before = record_of(done)
    with pytest.raises(ValueError, match=r"budget was '1s', now '2s'.*measure\.num_samples was 24, now 25"):
        reproduce(tiny(done, source, budget="2s", **{"measure.num_samples": 25}))
    assert record_of(done) == before


@pytest.mark.slow
def test_without_labels_and_in_colour(source, tmp_path):
    """The paper's CelebA network on a folder of pictures that have no classes."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in source.rglob("*.png"):
        Image.merge("RGB", [Image.open(path), Image.new("L", (16, 16), 90), Image.new("L", (16, 16), 30)]).save(
            flat / path.name
        )
    settings = {
        **TINY, "output_dir": str(tmp_path / "out"), "source": str(flat), "data.image_size": 16,
        "ddpm.overrides.model.norm_num_groups": 1, "measure.num_from_data": 10,
    }  # fmt: skip
    folder = reproduce(load_config_of(ReproductionConfig, "reproduce-colour64", settings))
    record = record_of(folder)
    assert [claim["figure"] for claim in record["claims"]] == [5, 5, 6, 7, 7, 8, 8, 9, 9]
    assert "without labels" in record["features"]["description"]
    assert {mark["same_class"] for mark in record["dial"]} == {None}
    assert (folder / "figure-5.png").exists()


@pytest.mark.slow
def test_celeba_is_measured_on_its_official_test_split(tmp_path):
    """Figures 5 to 9 of a folder as CelebA's authors give it out."""
    celeba = make_celeba(tmp_path, {"train": 24, "valid": 6, "test": 90})
    settings = {
        **TINY, "output_dir": str(tmp_path / "out"), "source": str(celeba), "data.num_images": 20,
        "data.num_held_out": 90, "ddpm.overrides.model.norm_num_groups": 1,
        "dcgan.settings": {"narrow": {"train.width": 2, "train.batch_size": 16}},
    }  # fmt: skip
    folder = reproduce(load_config_of(ReproductionConfig, "reproduce-celeba64", settings))
    record = record_of(folder)
    assert [claim["figure"] for claim in record["claims"]] == [5, 5, 6, 7, 7, 8, 8, 9, 9]
    files = files_by_pixels(celeba)
    reals = np.load(folder / "reals.npz")["images"].transpose(0, 3, 1, 2)
    of_test = set(names_of(celeba, "test"))
    assert reals.shape == (50, 3, 64, 64)
    assert {files[inner(image)] for image in reals} < of_test


def test_both_models_get_the_same_images_and_the_files_of_their_configs(source, tmp_path):
    config = tiny(tmp_path / "out", source, seed=7)
    ddpm, dcgans = runs_of(config)
    assert {run.data for run in dcgans.values()} == {ddpm.data}
    assert {run.seed for run in dcgans.values()} == {ddpm.seed} == {7}
    assert ddpm.model.norm_type == "batch"
    assert ddpm.model.block_out_channels == (4, 8)
    assert ddpm.train.lr_schedule == "cosine"
    assert [run.train.width for run in dcgans.values()] == [4, 8]


@pytest.mark.parametrize("name", ["mnist", "colour64", "celeba64"])
def test_the_packaged_reproductions_are_whole(name, tmp_path, capsys):
    config = load_config_of(ReproductionConfig, f"reproduce-{name}", {"output_dir": str(tmp_path)})
    ddpm, dcgans = runs_of(config)
    assert len(dcgans) >= 6
    assert len({dataclasses.astuple(run.train) for run in dcgans.values()}) == len(dcgans)
    assert config.dcgan.trial == 0.1
    assert config.measure.start_timesteps == tuple(range(50, 1001, 50))
    assert ddpm.data.num_held_out > config.measure.num_reals
    cli.main(["reproduce", name, "--dry_run"])
    assert f"reproduce-{name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "soon"}, "budget is 'soon'; wanted a time such as"),
        ({"budget": "60"}, "budget is 60; wanted a time such as 90s, 60m or 2h"),
        ({"measure.resamples": 1}, "resamples is 1; it must be at least 20"),
        ({"measure.num_samples": 26}, "26 images are scored; .* wanted at least 52 reals"),
        ({"measure.num_reals": 20}, "num_reals is 20, but num_from_data, num_inputs or twice num_blends want 28"),
        ({"measure.start_timesteps": [300]}, "wanted numbers from 1 to 1000, each once, among them 300 and 1000"),
        ({"measure.start_timesteps": [300, 1000, 1200]}, "wanted numbers from 1 to 1000"),
        ({"data.num_held_out": 50}, r"num_held_out is 50; wanted at least 90: measure\.num_reals \(50\) and 40 others"),
        ({"dcgan.settings": {}}, "must name at least one"),
        ({"measure.num_variations": 1}, "at least 2"),
        (
            {"ddpm.overrides.train.batch_sise": 3},
            r"unknown setting train\.batch_sise: did you mean --train\.batch_size",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(source, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        reproduce(tiny(tmp_path / "out", source, **settings))
    assert not (tmp_path / "out").exists()


def test_images_too_small_to_judge_are_refused(tmp_path):
    (tmp_path / "small").mkdir()
    for i in range(140):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "small" / f"{i}.png")
    with pytest.raises(ValueError, match="images are 8x8; a judge without labels needs at least 16x16"):
        reproduce(tiny(tmp_path / "out", tmp_path / "small"))
