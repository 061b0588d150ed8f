"""The ingest report of a run: data.json and data.png in a folder."""

import json
import os
from pathlib import Path

from fastddpm import report
from fastddpm.data import Splits, contact_sheet, summary


def write_data_report(splits: Splits, folder: Path) -> None:
    """Write the counts (see `data.summary`) and a sheet of images, a row a class where there are few classes."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "data.json.tmp"
    text = json.dumps(summary(splits), indent=1, ensure_ascii=False) + "\n"
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # which is JSON's way, too
    os.replace(temporary, folder / "data.json")
    rows = contact_sheet(splits.train)
    report.save_labelled_rows(rows, folder / "data.png", scale=max(1, round(64 / splits.train.image_shape[2])))
