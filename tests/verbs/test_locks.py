"""Two jobs on one --out: the second is refused in one line, whichever verb it is, and nothing there is touched."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fastddpm import AnomalyPipeline, FusedDDPMScheduler, cli, files
from fastddpm.config import load_config, to_yaml
from tests.conftest import tiny_unet
from tests.studies.augmentation.conftest import stripes
from tests.studies.augmentation.conftest import tiny as gain_config
from tests.studies.paper.test_reproduce import tiny as reproduction
from tests.training.runs import free_port

OF_A_RUN = ["--train.batch_size", "8", "--train.mixed_precision", "no", "--train.num_threads", "1"]
VERBS = {
    "sample": ["sample", "MODEL"],
    "vary": ["vary", "MODEL", "IMAGES"],
    "cutmix": ["cutmix", "MODEL", "IMAGES"],
    "augment": ["augment", "MODEL", "IMAGES"],
    "detect": ["detect", "MODEL", "IMAGES", "--normal", "IMAGES"],
    "evaluate": ["evaluate", "IMAGES", "IMAGES", "--features", "EMPTY"],
    "judge": ["judge", "IMAGES"],
    "train": ["train", "--config", "EMPTY", "--data.source", "IMAGES", *OF_A_RUN],
    "dcgan": ["dcgan", "--config", "EMPTY", "--data.source", "IMAGES", *OF_A_RUN],
    "ingest": ["ingest", "IMAGES"],
    "ledger": ["ledger", "RUN"],
    "reproduce": ["reproduce", "--config", "REPRODUCTION"],
    "evaluate augmentation": ["evaluate", "augmentation", "--config", "GAIN"],
}


OF_A_FILE = {"judge": "out.safetensors", "ledger": "out.jsonl"}


@pytest.fixture
def given(tmp_path, image_folder, monkeypatch):
    """What the words in capitals stand for."""
    monkeypatch.setenv("FASTDDPM_CACHE", str(tmp_path / "cache"))
    images, labels = stripes(90)
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    np.savez(tmp_path / "many.npz", images=np.random.default_rng(0).integers(0, 256, (140, 16, 16), np.uint8))
    AnomalyPipeline(tiny_unet(), FusedDDPMScheduler()).save_pretrained(tmp_path / "model")
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    settings = {"data.source": str(image_folder), "train.batch_size": 8, "output_dir": str(tmp_path / "run")}
    texts = {
        "EMPTY": "{}",
        "RUN": to_yaml(load_config(None, settings)),
        "REPRODUCTION": to_yaml(reproduction(tmp_path / "out", tmp_path / "many.npz")),
        "GAIN": to_yaml(gain_config(tmp_path / "out", tmp_path / "stripes.npz")),
    }
    places = {name: tmp_path / f"{name}.yaml" for name in texts} | {"RUN": tmp_path / "run" / "config.yaml"}
    for name, text in texts.items():
        places[name].write_text(text)
    return {**places, "RUN": tmp_path / "run", "MODEL": tmp_path / "model", "IMAGES": image_folder}


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_job_on_one_out_is_refused_and_touches_nothing(tmp_path, given, capsys, verb):
    out = tmp_path / OF_A_FILE.get(verb, "out")
    kept = out if verb in OF_A_FILE else out / "of-the-first"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("kept")
    words = [str(given.get(word, word)) for word in VERBS[verb]]
    with files.locked(out), pytest.raises(SystemExit) as stop:
        cli.main([*words, "--out", str(out)])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fastddpm: error: ")]
    assert lines == [f"fastddpm: error: {out} is in use by a running job; wait for it, or choose another --out"]
    assert kept.read_text() == "kept"
    assert verb in OF_A_FILE or list(out.iterdir()) == [kept]


@pytest.fixture
def detecting(tmp_path):
    """The words of a `detect` that takes a while."""
    AnomalyPipeline(tiny_unet(), FusedDDPMScheduler()).save_pretrained(tmp_path / "model")
    for name, count in (("normal", 30), ("others", 1000)):
        np.savez(
            tmp_path / f"{name}.npz", images=np.random.default_rng(count).integers(0, 256, (count, 8, 8), np.uint8)
        )
    words = ["detect", "model", "others.npz", "--normal", "normal.npz", "--out", "out", "--micro_batch_size", "1"]
    return [*words, "--num_threads", "1"]


@pytest.mark.slow
def test_two_detections_at_once_on_two_ranks_each(tmp_path, detecting):
    """V12. The first one goes on unharmed; each rank of the second says why it does not begin."""
    env = {**os.environ, "FASTDDPM_CACHE": str(tmp_path / "cache")}
    first = subprocess.Popen(
        [sys.executable, "-m", "fastddpm", *detecting], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / ".out.lock").exists():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()), "-m"]
    second = subprocess.run(
        [sys.executable, *launch, "fastddpm", *detecting],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert second.returncode != 0
    refusals = {line for line in second.stderr.splitlines() if line.startswith("fastddpm: error: ")}
    said = "out is in use by a running job; wait for it, or choose another --out"
    assert refusals == {f"fastddpm: error: rank {rank}: {said}" for rank in (0, 1)}, second.stderr
    _, errors = first.communicate(timeout=240)
    assert first.returncode == 0, errors
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 1000
    assert not (tmp_path / ".out.lock").exists()
