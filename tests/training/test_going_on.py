"""A run goes on with what it was: its pictures wherever they lie, its settings as the checkpoint has them; what changed
is told by counts and names, with the ways on."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fastddpm
from fastddpm.data import splits_of_run
from fastddpm.data.named_pictures import named_images
from fastddpm.training.ledger import write_ledger
from tests.training.runs import final_tensors, some_images, train_here

SHORT = {"train.num_images_seen": "80", "train.checkpoint_every": "5", "sample.num_inference_steps": "1"}
WAYS = "go on as it was, or begin anew in another --out with --model.init_from"


@pytest.fixture
def begun(tmp_path):
    """A run that was stopped after five of ten steps, and its pictures."""
    images = some_images(tmp_path / "images")
    with pytest.raises(RuntimeError, match="in the middle"):
        train_here(tmp_path / "run", images, fail_at=6, **SHORT)
    return tmp_path / "run", images


def test_moved_and_renamed_pictures_are_trained_on_to_the_same_bits(begun, tmp_path, caplog):
    run, images = begun
    straight = train_here(tmp_path / "straight", images, **SHORT)
    for number, path in enumerate(sorted(images.iterdir())):
        path.rename(images / f"{(7 * number) % 24 + 30}.png")
    images.rename(tmp_path / "elsewhere")
    train_here(run, tmp_path / "elsewhere", **SHORT)
    assert "the run's own pictures, named or ordered otherwise" in caplog.text
    one, other = final_tensors(run, 10), final_tensors(straight, 10)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert str(tmp_path / "elsewhere") in str(splits_of_run(run)[1].kept.facts["place"])


def test_changed_pictures_are_refused_by_count_and_name_or_allowed(begun, caplog):
    run, images = begun
    held_out = named_images(f"{run}:held_out").images
    for name in ("new.png", "03.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (8, 8), dtype=np.uint8)).save(images / name)
    told = rf"1 added \(new.png\), 1 changed \(03.png\); {WAYS} .*--data.allow_change true"
    with pytest.raises(ValueError, match=told):
        train_here(run, images, **SHORT)
    train_here(run, images, **SHORT, **{"data.allow_change": "true"})
    assert "1 added (new.png), 1 changed (03.png): going on with them" in caplog.text
    config, splits = splits_of_run(run)
    assert not config.data.allow_change
    assert len(splits.train) + len(splits.held_out) == 25
    kept_out = [splits.held_out.image(place).tobytes() for place in range(len(splits.held_out))]
    assert [image.tobytes() for image in held_out if image.tobytes() in kept_out] == kept_out[: len(held_out)]
    train_here(run, images, **SHORT)  # once is enough


def test_an_edited_config_is_told_setting_by_setting_and_the_checkpoint_counts(begun, tmp_path, caplog):
    run, images = begun
    write_ledger(run, tmp_path / "before.jsonl")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["train"] |= {"learning_rate": 0.5, "batch_size": 4, "num_images_seen": 40}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    write_ledger(run, tmp_path / "after.jsonl")
    assert "config.yaml says train.batch_size 4, the run's checkpoint 8, which counts" in caplog.text
    assert "config.yaml says train.learning_rate 0.5, the run's checkpoint 0.001, which counts" in caplog.text
    before, after = ((tmp_path / name).read_text().splitlines() for name in ("before.jsonl", "after.jsonl"))
    assert after == before[:5]  # of the length that may change
    config = fastddpm.load_config(run / "config.yaml", {"data.source": str(images)})
    with pytest.raises(ValueError, match=f"batch_size was 8, now 4; train.learning_rate was 0.001, now 0.5; {WAYS}"):
        fastddpm.train(config)
    manifest = json.loads((run / "checkpoints" / "step-00000005" / "manifest.json").read_text())
    assert manifest["config"]["train"]["learning_rate"] == 0.001


def test_a_longer_cosine_run_says_where_its_rate_jumps(begun, capsys):
    run, images = begun
    train_here(run, images, **SHORT)
    train_here(run, images, **{**SHORT, "train.num_images_seen": "160"})
    said = capsys.readouterr().out
    assert "the learning rate goes on at 0.00075, where the run of 80 images had come to 0: lr_schedule cosine" in said
    assert f"begin in another --out with --model.init_from {run}" in said


def test_a_run_without_its_list_is_known_by_its_fingerprint(begun):
    """As those of earlier versions."""
    run, images = begun
    (run / "pictures.safetensors").unlink()
    assert len(named_images(f"{run}:held_out").images) == 4
    shutil.copy(images / "00.png", images / "copy.png")
    with pytest.raises(ValueError, match="they are not those of .*/run, which kept no list of them"):
        named_images(f"{run}:held_out")
    with pytest.raises(ValueError, match="holds 24 images, and they are not those of the run in .*/run, which kept no"):
        train_here(run, images, **SHORT)


def test_a_damaged_list_is_told(begun):
    run, images = begun
    (run / "pictures.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"pictures.safetensors cannot be read \(.*\); restore it"):
        train_here(run, images, **SHORT)


def test_a_length_that_is_passed_already_is_a_finished_run(tmp_path, image_folder, capsys):
    train_here(tmp_path / "run", image_folder)
    train_here(tmp_path / "run", image_folder, **{"train.num_images_seen": "80"})
    assert "is finished already, 160 images seen" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "finished" in page
    assert "200%" not in page
