# /// script
# requires-python = ">=3.11"
# dependencies = ["fastddpm[benchmarks]", "denoising-diffusion-pytorch"]
#
# [tool.uv.sources]
# fastddpm = { path = ".." }
# ///
"""A record of this machine's GPU, in an environment of its own: uv run benchmarks/gpu_record.py

Is it right, then how fast (`benchmarks.gpu`), into one folder, runs/gpu-record, to send or to keep. `--cpu --tiny`
tries the script where there is no GPU.
"""

import argparse
import sys
from pathlib import Path

_TINY = ["--tiny", "--rounds", "1"]
TINY = {
    "benchmarks.gpu_checks": _TINY,
    "benchmarks.gpu_sizes": _TINY,
    "benchmarks.kernel_speed": [*_TINY, "--no_compile"],
    "benchmarks.training_speed": [*_TINY, "--no_compile", "--no_processes", "--batch_size", "4", "--steps", "1"],
    "benchmarks.sampling_speed": [*_TINY, "--num_images", "4"],
}
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    import torch

    from benchmarks.gpu import ALL, run_all

    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu-record", help="folder (%(default)s)")
    asked.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), help="modules to run")
    asked.add_argument("--tiny", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    asked.add_argument("--cpu", action="store_true", help="go on without a GPU")
    given = asked.parse_args()
    if not (given.cpu or torch.cuda.is_available()):
        sys.exit("gpu_record: there is no GPU that torch sees; --cpu --tiny tries the script without one")
    out = given.out.resolve()
    sizes = TINY if given.tiny else ALL  # the sizes of a card take a CPU many minutes
    words = {name: ["--out", str(out / name.rpartition(".")[2]), *sizes[name]] for name in given.only}
    failed = run_all(words)
    print(f"\nrecord: {out}; send it as it is: tar czf gpu-record.tar.gz -C {out} .")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are recorded")


if __name__ == "__main__":
    main()
