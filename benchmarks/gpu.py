"""Everything on a GPU: python -m benchmarks.gpu

First whether it is right (`benchmarks.gpu_checks`), then training at four sizes of images, kernels against eager and
compiled references, training in whole runs, and sampling. Each writes a dated record with a table and a picture; one
that fails does not end the rest. `benchmarks/gpu_record.py` does the same in an environment of its own.
"""

import subprocess
import sys

import torch

from benchmarks.harness import ROOT

ALL = {
    "benchmarks.gpu_checks": [],
    "benchmarks.gpu_sizes": [],
    "benchmarks.kernel_speed": [],
    "benchmarks.training_speed": ["--batch_size", "512", "--steps", "40"],
    "benchmarks.sampling_speed": ["--num_images", "512"],
}


def run_all(words: dict[str, list[str]]) -> list[str]:
    """Run modules with their words, in turn.  Returns: names of those that failed."""
    failed = []
    for name, options in words.items():
        print(f"\n{name}", flush=True)
        if subprocess.run([sys.executable, "-m", name, *options], cwd=ROOT, check=False).returncode:
            failed.append(name)
    return failed


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: there is no GPU that torch sees; on a CPU use python -m benchmarks (make bench)")
    failed = run_all({name: [*options, *sys.argv[1:]] for name, options in ALL.items()})
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the others are recorded")


if __name__ == "__main__":
    main()
