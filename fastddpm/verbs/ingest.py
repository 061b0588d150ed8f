"""`fastddpm ingest`: images read in as training would, and what they are."""

from fastddpm.config.bounded_types import File, strict
from fastddpm.config.settings import RunConfig


@strict
class IngestRequest(RunConfig):
    """Read images in as training would, name every bad file, and say what was found: counts, sizes, modes, labels,
    copies. Training then starts at once, because what was read in stays."""

    output_dir: str = "none"
    """Run folder, which is left alone."""
    out: File | None = None
    """Folder for the report: data.json, and data.png with a sheet of images; null: none is written."""


def ingest(request: IngestRequest) -> None:
    """Read the images of `request.data`, and say what they are.

    Raises: ValueError: bad files, or settings that do not fit the images.
    """
    from fastddpm.data import load_splits, summary, summary_lines
    from fastddpm.files import locked
    from fastddpm.training.folder import write_data_report

    splits = load_splits(request.data, seed=request.seed)
    print("\n".join(summary_lines(summary(splits))))
    if request.out is not None:
        with locked(request.out):
            write_data_report(splits, request.out)
        print(f"counts: {request.out / 'data.json'}  pictures: {request.out / 'data.png'}")
