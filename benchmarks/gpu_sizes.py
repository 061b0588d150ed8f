"""How fast is training at each size of image?  python -m benchmarks.gpu_sizes

At 28, 64, 128 and 256 pixels, in one precision: our loop with the paper's U-Net beside a bare loop with it; our loop
with diffusers' network beside diffusers' example loop; and lucidrains' steps, where it is installed. Batches are meant
for a card of 16 GB. A unit is an image; a size that fails does not end the rest.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Side, interleave, paired, parser, row, write_record
from benchmarks.peers import lucidrains
from fastddpm.precision import resolve_precision
from fastddpm.process import runs_on_cpu

BATCHES = {28: 128, 64: 64, 128: 16, 256: 4}
OURS, BARE, OURS_STOCK, EXAMPLE, LUCIDRAINS = (
    "ours", "bare loop", "UNet2DModel, ours", "UNet2DModel, example loop", "lucidrains",
)  # fmt: skip


def main() -> None:
    asked = parser(__doc__, "gpu-sizes")
    asked.add_argument("--sizes", nargs="+", type=int, choices=BATCHES, default=list(BATCHES))
    asked.add_argument("--steps", type=int, default=20, help="of a round")
    given = asked.parse_args()
    rows, failed = [], []
    for size in given.sizes[: 1 if given.tiny else None]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                runs = interleave(sides(given, size, Path(folder)), rounds=given.rounds, title=f"{size} pixels")
            except RuntimeError as error:
                failed.append(f"{size}: {str(error).strip().splitlines()[-1]}")
                continue
        for name, found in runs.items():
            other = {OURS: BARE, OURS_STOCK: EXAMPLE}.get(name)
            more = {} if other is None else {"times as fast as the one below": paired(runs, name, other)["p50"]}
            rows.append(row(f"{size}x{size}: {name}", found, "images/s", **more))
    write_record(given.out, "Training by size", rows, settings=vars(given) | {"out": None}, failed=failed)
    if failed:
        raise SystemExit("\n".join(failed))


def sides(given: argparse.Namespace, size: int, folder: Path) -> dict[str, Side]:
    """What takes steps at this size, all in the precision that `auto` is here."""
    precision = resolve_precision("auto", runs_on_cpu())
    batch, paper, stock = (2, [4, 8], [8, 16]) if given.tiny else (BATCHES[size], [64, 128, 256], [32, 64, 128])
    of_side = {"batch_size": batch, "steps": 1 if given.tiny else given.steps, "size": size, "precision": precision}

    def ours(name: str, **settings: Any) -> Side:
        values = {
            "output_dir": str(folder / name), "data.source": "digits", "data.num_images": 2**22 // size**2 // 4 + 16,
            "data.num_held_out": 0, "data.image_size": size, "train.batch_size": batch, "train.compile": False,
            "train.mixed_precision": precision, **settings,
        }  # fmt: skip
        overrides = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        return Side("benchmarks.ours:training", {"config": None, "overrides": overrides, "steps": of_side["steps"]})

    of_stock = {
        "model.architecture": "UNet2DModel", "model.block_out_channels": stock, "model.layers_per_block": 1,
        "model.attention_levels": [len(stock) - 2], "model.attention_head_dim": 8, "model.norm_num_groups": min(stock),
    }  # fmt: skip
    of_example = {"widths": stock, "layers": 1, "groups": min(stock)}
    found = {
        OURS: ours("paper", **{"model.block_out_channels": paper}),
        BARE: Side("benchmarks.peers.loops:bare_loop", of_side | {"widths": paper}),
        OURS_STOCK: ours("stock", **of_stock),
        EXAMPLE: Side("benchmarks.peers.loops:example_loop", of_side | of_example),
    }
    if lucidrains.is_installed():
        of_theirs = lucidrains.TINY_SIZE if given.tiny else lucidrains.SIZE
        found[LUCIDRAINS] = Side("benchmarks.peers.lucidrains:training", of_side | of_theirs)
    return found


if __name__ == "__main__":
    main()
