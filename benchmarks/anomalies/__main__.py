"""python -m benchmarks.anomalies STAGE: see the package's docstring."""

import argparse
from pathlib import Path

from benchmarks import anomalies
from benchmarks.anomalies import measure, runs
from benchmarks.anomalies.judges import judge_of
from benchmarks.anomalies.sets import TINY, Sizes, colours, digits, together


def main() -> None:
    given = _arguments()
    sizes = TINY if given.tiny else Sizes()
    parts = digits(given.mnist, sizes)
    if given.stage == "train":
        if given.colour is not None:
            colours(given.colour, given.work, sizes)
        planned = list(runs.tasks(given.seeds, sizes, has_colour=given.colour is not None))
        planned = [task for task in planned if task.name.startswith(given.only)]
        runs.train_all(planned, parts, given.work, sizes)
    if given.stage == "judges":
        named = {f"digit{digit}": part for digit, part in enumerate(parts)} | {"digits": together(parts)}
        if given.colour is not None:
            named["colour"] = colours(given.colour, given.work, sizes)
        for name, part in named.items():
            judge_of(name, part, given.work, sizes)
    if given.stage == "one-class":
        measure.one_class(parts, given.work, given.seeds, sizes)
    if given.stage == "planted":
        colour = None if given.colour is None else colours(given.colour, given.work, sizes)
        measure.planted(parts, colour, given.work, given.seeds, sizes)


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=anomalies.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("stage", choices=("train", "judges", "one-class", "planted"))
    asked.add_argument("--mnist", type=Path, required=True, help="train-images-idx3-ubyte[.gz], its labels beside it")
    asked.add_argument("--colour", type=Path, help="a folder or a zip of colour pictures; left out: digits only")
    asked.add_argument("--work", type=Path, required=True, help="where runs and measurements are, or come to be")
    asked.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--only", default="", help="of the stage train: runs whose names begin with this")
    asked.add_argument("--tiny", action="store_true", help="tiny sizes: whether it works, not how well")
    return asked.parse_args()


if __name__ == "__main__":
    main()
