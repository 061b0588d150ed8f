"""13 steps, kill -9 and the rest, against 20 steps in one go, over the product of what could break it.

python -m tests.training.matrix FOLDER [--every N]
"""

import argparse
import itertools
import json
import signal
from pathlib import Path

from tests.training.forked import ended, finish, removed, started
from tests.training.runs import some_images

CHOICES = {
    "accumulation": {
        "1": {"train.batch_size": "6"},
        "3": {"train.batch_size": "6", "train.micro_batch_size": "2"},
    },
    "averages": {"none": {"train.ema_decay": "0"}, "two": {"train.ema_decay": "[0.9, 0.99]"}},
    "schedule": {"constant": {"train.lr_schedule": "constant"}, "cosine": {"train.lr_schedule": "cosine"}},
    "flips": {"off": {"train.horizontal_flip": "false"}, "on": {"train.vertical_flip": "true"}},
    "precision": {"fp32": {"train.mixed_precision": "no"}, "bf16": {"train.mixed_precision": "bf16"}},
    "processes": {"1": {}, "2": {}},
}  # fmt: skip
KILLED_AT = 13
"""of an epoch of 20 images in steps of 6: in its middle"""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--every", type=int, default=1, help="of the combinations")
    given = asked.parse_args()
    base = {
        "data.source": str(some_images(given.folder / "images")), "train.num_images_seen": "120",
        "train.determinism": "exact",
    }  # fmt: skip
    equal = []
    for names in list(itertools.product(*CHOICES.values()))[:: given.every]:
        chosen = dict(zip(CHOICES, names, strict=True))
        settings, processes = dict(base), int(chosen["processes"])
        for what, name in chosen.items():
            settings |= CHOICES[what][name]
        straight, folder = removed(given.folder / "straight"), removed(given.folder / "killed")
        expected = finish(straight, settings, processes)
        codes = ended(started(folder, settings, processes, KILLED_AT))
        if -signal.SIGKILL not in codes or not (folder / "checkpoints" / "step-00000010").is_dir():
            raise SystemExit(f"{chosen}: was to be killed after the checkpoint of step 10, ended with {codes}")
        if finish(folder, settings, processes) != expected:
            raise SystemExit(f"{chosen}: a run that was killed differs: compare {folder} and {straight}")
        equal.append(chosen)
    print(json.dumps({"combinations": len(equal), "equal": len(equal)}))


if __name__ == "__main__":
    main()
