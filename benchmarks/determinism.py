"""What exactness costs:  python -m benchmarks.determinism

Images a second of `mnist-paper` with each train.determinism, on 1, 2 and 4 processes of one thread: the same global
batch, cut into the same micro-batches. Whole runs, in turn.
"""

import tempfile
from pathlib import Path

from tqdm import tqdm

from benchmarks.harness import parser, points, whole_row, write_record
from benchmarks.training_speed import rate_of_run

MODES = ("null", "exact", "elastic")


def main() -> None:
    asked = parser(__doc__, "determinism")
    asked.add_argument("--batch_size", type=int, default=128, help="global")
    asked.add_argument("--micro_batch_size", type=int, default=32)
    asked.add_argument("--steps", type=int, default=18, help="of each run")
    asked.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    given = asked.parse_args()
    settings = {"train.batch_size": given.batch_size, "train.micro_batch_size": given.micro_batch_size}
    sides = [(processes, mode) for processes in given.processes for mode in MODES]
    seen: dict[tuple[int, str], list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for number in tqdm(range(given.rounds), "rounds", leave=False):
            turned = sides[number % len(sides) :] + sides[: number % len(sides)]
            for processes, mode in tqdm(turned, f"round {number + 1}", leave=False):
                out = Path(folder) / f"{processes}-{mode}-{number}"
                chosen = {**settings, "train.determinism": mode}
                seen[processes, mode].append(rate_of_run(given, out, processes, chosen, given.steps)[0])
    rows = []
    for (processes, mode), rates in seen.items():
        ratios = [rate / usual for rate, usual in zip(rates, seen[processes, "null"], strict=True)]
        more = {"of the default": round(points(ratios)[1], 4)}
        rows.append(whole_row(f"{mode}, {processes} process(es) of one thread", rates, "images/s", **more))
    write_record(
        given.out, "What exactness costs", rows, batch_size=given.batch_size, micro_batch_size=given.micro_batch_size,
        steps=given.steps, rounds=given.rounds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
