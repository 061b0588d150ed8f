"""Judges in files: both kinds, and what is none."""

import json

import pytest
import torch
from safetensors.torch import load, save_file

from fastddpm.measures.classifier import train_classifier
from fastddpm.measures.features import load_judge
from fastddpm.measures.unlabelled_judge import train_unlabelled
from tests.measures.test_classifier import bars


@pytest.fixture(scope="module", params=["classifier", "unlabelled"])
def judge(request):
    images, labels = bars(40)
    if request.param == "classifier":
        return train_classifier(images, labels, 2, epochs=2, batch_size=16, show_progress=False)
    return train_unlabelled(images, num_steps=3, show_progress=False)


def test_a_judge_comes_back_as_the_kind_it_was(judge, tmp_path):
    (tmp_path / "j.safetensors").write_bytes(judge.to_bytes())
    loaded = load_judge(tmp_path / "j.safetensors")
    images, _ = bars(8, seed=3)
    assert type(loaded) is type(judge)
    assert torch.equal(loaded.features(images), judge.features(images))
    assert loaded.sha256() == judge.sha256()
    assert loaded.facts == judge.facts
    assert loaded.description == judge.description
    assert not loaded.training


def test_a_file_without_a_judge_is_refused(judge, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="is no file; give a .safetensors file of `fastddpm judge`"):
        load_judge(path)
    weights = load(judge.to_bytes())
    gone = min(name for name in weights if name.endswith("weight"))  # torch forgives a missing count of batches
    incomplete, described = {k: v for k, v in weights.items() if k != gone}, {judge.kind: json.dumps(judge.arguments())}
    for write in (
        lambda: path.write_bytes(b"something else"),
        lambda: save_file(weights, path),
        lambda: save_file(weights, path, {"other": "{}"}),
        lambda: save_file(weights, path, {judge.kind: "{}"}),
        lambda: save_file(incomplete, path, described),
        lambda: path.write_bytes(judge.to_bytes()[:-50]),
    ):
        write()
        with pytest.raises(ValueError, match=r"holds no judge of ours \(.*; make one with `fastddpm judge`"):
            load_judge(path)
