"""Everything on a GPU: python -m benchmarks.gpu

Kernels against eager and compiled references, training (images/s, share of the vendor's peak, peak memory, waiting
for data, over one and more of the GPUs that are there), and sampling. Each writes a dated record with a table and a
picture.
"""

import subprocess
import sys

import torch

from benchmarks.harness import ROOT

ALL = {
    "benchmarks.kernel_speed": [],
    "benchmarks.training_speed": ["--batch_size", "512", "--steps", "40"],
    "benchmarks.sampling_speed": ["--num_images", "512"],
}


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: there is no GPU that torch sees; on a CPU use python -m benchmarks (make bench)")
    for name, options in ALL.items():
        print(f"\n{name}", flush=True)
        subprocess.run([sys.executable, "-m", name, *options, *sys.argv[1:]], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
