"""Every benchmark that fits this machine, one after the other: python -m benchmarks [--tiny]

Each prints pass or FAIL for what must be reached, and writes a dated record.
"""

import subprocess
import sys

from benchmarks.harness import ROOT

ALL = ("benchmarks.training_speed", "benchmarks.sampling_speed")


def main() -> None:
    for name in ALL:
        print(f"\n{name}", flush=True)
        subprocess.run([sys.executable, "-m", name, *sys.argv[1:]], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
