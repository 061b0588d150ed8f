"""Tables of README and docs that repeat the code; `python -m tests.generated_tables` writes them anew.

A page marks a table with `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from fastddpm.cli.table_of_verbs import VERBS
from fastddpm.config import RunConfig, load_config
from fastddpm.config.describe import options_of

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def verbs() -> str:
    rows = [f"| [{verb}](docs/{verb.split()[0]}.md) | {row.summary} |" for verb, row in VERBS.items()]
    return "\n".join(["| verb | |", "|---|---|", *rows])


def settings() -> str:
    """A line per setting: its default, and its meaning up to the first stop; `--help` has all of it."""
    options = options_of(RunConfig).items()
    return "\n".join(
        f"- `{name}={option.shown}`: {re.split('[;.](?: |$)', ' '.join(option.meaning.split()))[0]}"
        for name, option in options
    )


def configs() -> str:
    """A row of each packaged config of a training run."""
    rows = []
    for path in sorted((PROJECT / "configs").glob("*.yaml")):
        if path.stem.startswith(("dcgan", "gain", "reproduce")):
            continue
        config = load_config(path.stem, {"output_dir": "runs/x"})
        side = config.data.image_size or "as it is"
        cells = (
            f"`{path.stem}`",
            config.model.architecture,
            side,
            config.train.num_images_seen,
            config.train.batch_size,
        )
        rows.append("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |")
    return "\n".join(["| config | network | side | images | batch |", "|---|---|---|---|---|", *rows])


def samplers() -> str:
    """A row of each of diffusers' schedulers: what `tests/schedulers/exact.py` measured; lu has a row of its own."""
    rows = ["| scheduler | off | plain | karras | exponential | beta |", "|---|---|---|---|---|---|"]
    for name, found in json.loads((PROJECT / "tests" / "schedulers" / "exact.json").read_text()).items():
        for title, spacings in ((name, ("", "karras", "exponential", "beta")), (f"{name}/lu", ("lu",))):
            shown = [found[each] for each in spacings if each in found]
            if shown:
                off = "/".join("no" if value is None else f"{value:.1f}" for value in shown[0]["distance"])
                cells = ["/".join(f"{value:.2f}" for value in each["spread"]) for each in shown]
                rows.append(f"| {' | '.join((title, off, *cells))} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "verbs": verbs, "settings": settings, "configs": configs, "samplers": samplers,
}  # fmt: skip


def generated(page: str) -> str:
    """The page with every marked table as the code has it."""
    block = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(generated(path.read_text()))
