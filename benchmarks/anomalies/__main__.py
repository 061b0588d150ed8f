"""python -m benchmarks.anomalies STAGE: see the package's docstring."""

import argparse
from pathlib import Path

from benchmarks import anomalies
from benchmarks.anomalies import runs
from benchmarks.anomalies.sets import TINY, Sizes, colours, digits


def main() -> None:
    given = _arguments()
    sizes = TINY if given.tiny else Sizes()
    parts = digits(given.mnist, sizes)
    if given.stage == "train":
        if given.colour is not None:
            colours(given.colour, given.work, sizes)
        planned = list(runs.tasks(given.seeds, sizes, has_colour=given.colour is not None))
        runs.train_all(planned, parts, given.work, sizes)


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=anomalies.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("stage", choices=("train",))
    asked.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument("--colour", type=Path, help="a folder or a zip of colour pictures; left out: digits only")
    asked.add_argument("--work", type=Path, required=True, help="where runs and measurements are, or come to be")
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--tiny", action="store_true", help="tiny sizes: whether it works, not how well")
    return asked.parse_args()


if __name__ == "__main__":
    main()
