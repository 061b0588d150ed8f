"""What pip leaves without extras beside a torch for CPUs: no Triton, no `datasets`, no pyarrow. A run is trained and
drawn from in a process of its own where importing those fails, and what needs them says so."""

import subprocess
import sys

import numpy as np
import pytest

from tests.training.runs import TINY

CODE = """
import sys
for name in ("triton", "datasets", "pyarrow"):
    sys.modules[name] = None
from fastddpm.cli import main
from fastddpm.kernels import triton_or_not
assert triton_or_not.triton is None
folder, *words = sys.argv[1:]
main(["train", *words])
main(["sample", f"{folder}/run", "--num_images", "2", "--num_inference_steps", "2", "--out", f"{folder}/two.npz"])
main(["sample", f"{folder}/run", "--num_images", "2", "--out", f"{folder}/two.parquet"])
"""


@pytest.mark.slow
def test_a_run_trains_and_is_drawn_from_with_the_core_requirements(tmp_path, image_folder):
    (tmp_path / "empty.yaml").write_text("seed: 0\n")
    settings = {"config": f"{tmp_path}/empty.yaml", **TINY, "train.num_images_seen": "16", "train.log_every": "1"}
    settings |= {"out": f"{tmp_path}/run", "data.source": str(image_folder), "data.cache_dir": f"{tmp_path}/cache"}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path), *words],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert '"step": 2' in (tmp_path / "run" / "metrics.jsonl").read_text(), done.stderr
    assert np.load(tmp_path / "two.npz")["images"].shape == (2, 8, 8), done.stderr
    assert done.returncode != 0
    assert "riton" not in done.stderr, done.stderr
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith(
            f"--out {tmp_path}/two.parquet needs the package datasets, which is not installed; run pip install "
            f"'fastddpm[tables]', or write a folder"
        )
    )
