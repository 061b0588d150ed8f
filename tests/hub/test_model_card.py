"""The model card that is pushed: what the Hub accepts, what it says, and that the user's words stay."""

import getpass
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from torch import Tensor, nn

from fastddpm import FastDDPMPipeline
from fastddpm import hub as hub_package
from fastddpm.cli import main
from fastddpm.hub.card import BEGIN, END
from tests.hub.repos import File


class Means(nn.Module):
    """Six features of an image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.float().mean((2, 3)), images.float().std((2, 3))], dim=1)


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory) -> Path:
    """A copy of the run, with scores of its own making."""
    root = tmp_path_factory.mktemp("evaluated")
    folder = root / "run"
    shutil.copytree(trained, folder)
    torch.jit.script(Means()).save(str(root / "means.pt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDDPM_CACHE", str(root / "cache"))
        words = ["--num_images", "32", "--resamples", "20", "--num_inference_steps", "3", "--num_threads", "1"]
        main(["evaluate", str(folder), f"{folder}:train", "--features", str(root / "means.pt"),
              "--out", str(folder / "evaluation"), *words])  # fmt: skip
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


@pytest.fixture
def push(signed_in):
    def push_and_read(folder: Path, **options) -> str:
        hub_package.push(folder, "ann/model", **options)
        return signed_in.files("ann/model")["README.md"].decode()

    return push_and_read


@pytest.fixture
def edit(signed_in):
    """Change the card on the Hub, as its website does."""

    def on_the_hub(old: str, new: str) -> None:
        repo = signed_in.repo("ann/model")
        files = dict(repo.at("main").files)
        text = files["README.md"].content.decode()
        assert old in text
        files["README.md"] = File(text.replace(old, new, 1).encode())
        repo.add_commit("main", files, title="edited", author="ann")

    return on_the_hub


def head(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_metadata_pass_the_hubs_check(push, evaluated):
    text = push(evaluated, license="apache-2.0")
    card = ModelCard(text)
    card.validate()
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "diffusers")
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.tags == ["fastddpm", "ddpm", "diffusion-models"]
    assert head(text).keys() == {"license", "library_name", "pipeline_tag", "tags", "model-index"}, (
        "a folder is no data set"
    )


def test_scores_are_those_of_the_record(push, evaluated):
    record = json.loads((evaluated / "evaluation" / "evaluation.json").read_text())
    text = push(evaluated)
    results = {result.metric_type: result for result in ModelCard(text).data.eval_results}
    assert results.keys() == {"fid", "kid", "precision", "recall"}
    for name, result in results.items():
        assert result.metric_value == pytest.approx(record["scores"][name], abs=1e-4)
        assert "32 samples, 20 reals" in result.metric_name
        assert "6 features of a TorchScript network" in result.metric_name
    section = text.split("## Evaluation")[1].split("##")[0]
    assert f"{record['scores']['fid']:.4g}" in section
    assert f"{record['floor']['fid']:.4g}" in section, "what real images get"
    assert "How good its images are was not measured" not in text
    copies = text.split("## Copies of training images")[1].split("##")[0]
    assert "the 32 samples of the evaluation" in copies
    assert "nearest.png" not in text, "which is not published"


def test_scores_may_come_from_a_file_elsewhere(push, evaluated, run):
    assert "model-index" not in head(push(run))
    assert "model-index" in head(push(run, evaluation=evaluated / "evaluation" / "evaluation.json"))
    assert "model-index" not in head(push(run)), "scores of earlier weights are not claimed for these"


def test_card_says_what_the_records_say(push, run):
    text = push(run)
    about = json.loads((run / "about.json").read_text())
    for name, value in about["facts"]:
        assert f"| {name} | {value} |" in text
    for said in [
        "![Samples, not chosen](samples.png)", "(denoising.png)", "pictures: 24 images, 20 trained on",
        'FastDDPMPipeline.from_pretrained("ann/model")', "trust_remote_code=True", "train_set", "## Limits",
        "How good its images are was not measured.", "## Copies of training images", "num_images_seen: 160",
    ]:  # fmt: skip
        assert said in text.replace("loss, training images", "train_set"), said
    assert text.count(BEGIN) == text.count(END) == 1


def test_users_text_and_metadata_survive(push, edit, run):
    first = push(run)
    edit("# A DDPM: model\n", "# Clouds\n\nMy words.\n")
    edit("tags:\n", "language: en\nlicense: mit\ntags:\n- clouds\n")
    second = push(run)
    assert "# Clouds\n\nMy words.\n" in second
    assert "# A DDPM: model" not in second
    assert (head(second)["license"], head(second)["language"]) == ("mit", "en")
    assert set(head(second)["tags"]) == {*head(first)["tags"], "clouds"}
    edit(f"{END}\n", f"{END}\n\n## Thanks\n\nTo all.\n")
    third = push(run)
    assert third.endswith("## Thanks\n\nTo all.\n")
    assert "My words." in third
    assert push(run) == third


def test_text_of_the_folder_survives_and_wins(push, edit, run):
    push(run)
    edit("# A DDPM: model\n", "# Of the website\n")
    readme = run / "README.md"
    readme.write_text(readme.read_text().replace("# A DDPM trained with fastddpm", "# Of the folder").replace(
        "tags:\n", "license: cc0-1.0\ntags:\n- mine\n"))  # fmt: skip
    for text in (push(run), push(run)):
        assert "# Of the folder\n" in text
        assert "Of the website" not in text
        assert head(text)["license"] == "cc0-1.0"
        assert "mine" in head(text)["tags"]
        assert text.count(BEGIN) == 1


def test_card_without_our_marks_stays_until_pushed_then_keeps_its_text(push, run):
    (run / "README.md").write_text("---\nlicense: mit\n---\nAll mine.\n")
    FastDDPMPipeline.from_pretrained(run).save_pretrained(run)
    assert (run / "README.md").read_text() == "---\nlicense: mit\n---\nAll mine.\n"
    text = push(run)
    assert "All mine.\n\n" + BEGIN in text
    assert head(text)["license"] == "mit"
    assert "# A DDPM" not in text
    assert (run / "README.md").read_text() == "---\nlicense: mit\n---\nAll mine.\n"


def test_card_that_the_hub_would_refuse_is_one_line(signed_in, run):
    for text, message in [
        ("---\nlicense: [mit\n---\nx\n", "the metadata of the model card, README.md, are no valid YAML"),
        ("---\nlicense: {a: b}\n---\nx\n", '"license" must be a string or an array of strings'),
    ]:
        (run / "README.md").write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            hub_package.push(run, "ann/model")
        assert "\n" not in str(caught.value)
        assert not signed_in.store.repos or len(signed_in.commits("ann/model")) == 1


SHORT = 5


def test_no_path_token_or_name_of_this_machine_is_pushed(signed_in, evaluated, push, images):
    push(evaluated)
    secrets = [str(images.parent), str(evaluated.parent), str(Path.home()), "hf_ann", socket.gethostname()]
    secrets += [getpass.getuser()] if getpass.getuser() not in ("root", "runner") else []
    for name, content in signed_in.files("ann/model").items():
        for secret in secrets:
            if len(secret) > SHORT or name.endswith((".md", ".json", ".py")):  # pixels and weights hold any few letters
                assert secret.encode() not in content, (name, secret)


def test_name_of_a_data_set_on_the_hub_is_metadata(push, run):
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**data, "source": "ann/clouds", "hub_dataset": "ann/clouds"}))
    text = push(run)
    assert head(text)["datasets"] == ["ann/clouds"]
    assert "| data set | ann/clouds: 24 images, 20 trained on |" in text
    ModelCard(text).validate()


def test_the_card_of_a_finished_run_says_what_it_did_before_any_push(trained):
    card = (trained / "README.md").read_text()
    assert "![Samples, not chosen](samples.png)" in card
    assert "| images seen | 160 |" in card
    assert "## Copies of training images" in card
    assert "was not looked at" not in card


def test_a_bar_in_a_name_makes_no_column(push, run):
    data = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**data, "source": "/pictures/dark|light"}))
    assert "| data set | dark\\|light: 24 images, 20 trained on |" in push(run)
