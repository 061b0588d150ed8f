"""The Triton kernels compiled ahead of time, as `python -m benchmarks.kernels_aot` does, in a process where
TRITON_INTERPRET is not set."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed here")
pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]

CODE = """
import dataclasses, json, sys
from benchmarks import kernels_aot as aot
launches = {name: make() for name, make in aot.VARIANTS.items()}
launches["planted"] = aot.step(aot.FP32, keyed=False, shape=(4, 1, 7, 7))  # 49 elements: most images are not aligned
made = {
    f"{name} @ {target}": dataclasses.asdict(aot.compiled(launch, aot.TARGETS[target]))
    for name, launch in launches.items() for target in sys.argv[1:]
}
fused = {
    name: [aot.compiled(launch, aot.TARGETS["sm_90"], fp_fusion=fusion).arithmetic for fusion in (False, True)]
    for name, launch in launches.items() if "sm_90" in sys.argv and "channels_last" not in name
}
images = {
    name: [(argument.startswith(("x_t", "made", "out", "x_prev", "model_input", "to_pred"))
            or (argument == "x_0_ptr" and "denoise_step" in name), tensor.itemsize)
           for argument, tensor in launch.elements()]
    for name, launch in launches.items()
}
json.dump({"made": made, "fused": fused, "images": images}, sys.stdout)
"""


@pytest.fixture(
    scope="module",
    params=[["sm_90", "gfx942"], pytest.param(["sm_80", "sm_100"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def read(request, tmp_path_factory):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    done = subprocess.run(
        [sys.executable, "-c", CODE, *request.param], capture_output=True, text=True, cwd=PROJECT, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def is_wide(made, images, *, exactly):
    """Four elements an access: 16 bytes of float32, 8 of a 16-bit number, 4 of uint8, none narrower.

    Words (int64) are two accesses of 16 bytes. A loop that is unrolled repeats its loads.
    """
    for is_store, name in ((True, "stores"), (False, "loads")):
        wanted = collections.Counter(min(128, 32 * size) for stored, size in images if stored is is_store)
        found = {int(bits): times for bits, times in made[name].items()}
        if any(bits < 32 for bits in found):
            return False
        for bits, times in wanted.items():
            if found.get(bits, 0) < times or (exactly and bits == 128 and found[bits] != times):
                return False
    return True


def test_nothing_is_spilled(read):
    assert len(read["made"]) >= 30
    for name, made in read["made"].items():
        assert made["spilled_bytes"] == made["stack_bytes"] == 0, name
        assert made["registers"] <= 64, name  # with 256 threads: as many programs at once as the hardware holds threads
        assert made["shared_bytes"] <= 4096, name


def test_accesses_of_contiguous_images_are_wide(read):
    checked = 0
    for name, made in read["made"].items():
        kernel = name.split(" @ ")[0]
        if "channels_last" in kernel or kernel == "planted":
            continue
        images = read["images"][kernel]
        exactly = "words" not in kernel and "denoising_mse:" not in kernel
        assert images, name
        assert is_wide(made, images, exactly=exactly), (name, made)
        checked += 1
    assert checked >= 24


def test_the_check_of_widths_can_fail(read):
    planted = [(name, made) for name, made in read["made"].items() if name.startswith("planted")]
    assert len(planted) == 2
    for _, made in planted:
        assert not is_wide(made, [(False, 4)] * 3 + [(True, 4)], exactly=True)


def test_fp_fusion_changes_nothing(read):
    """Under torch.compile the option does not reach the compiler: no kernel may depend on it."""
    if not read["fused"]:
        pytest.skip("compiled both ways for sm_90 only")
    for name, (off, on) in read["fused"].items():
        assert off == on, name
    assert sum(off.get("FFMA", 0) for off, _ in read["fused"].values()) > 0
