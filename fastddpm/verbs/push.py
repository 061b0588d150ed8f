"""`fastddpm push`: a model, or images, on the Hub."""

from typing import Any

from fastddpm.config.bounded_types import File, strict


@strict
class PushRequest:
    """Publish the saved model of a run on the Hub: one commit of its own files, nothing else of the run. Or images that
    sample, vary or cutmix wrote, as a data set."""

    folder: File
    """Finished run, folder of save_pretrained, or images."""
    repo_id: str
    """Repository as USER/NAME, made if it is not there."""
    private: bool = False
    """Show the repository to its owner only."""
    revision: str | None = None
    """Branch, made if it is not there; null: main."""
    license: str | None = None
    """Licence of the weights, such as apache-2.0; null: what the card says already."""
    evaluation: File | None = None
    """File evaluation.json for the card; null: RUN/evaluation/evaluation.json, if it is there."""


def push(request: PushRequest) -> None:
    """Push what lies at `request.folder`, and say what came of it.

    Raises: ValueError, OSError: as `fastddpm.hub.push`.
    """
    from fastddpm import hub

    where: dict[str, Any] = {"private": request.private, "revision": request.revision, "license": request.license}
    if hub.holds_images(request.folder):
        done = hub.push_images(request.folder, request.repo_id, **where)
    else:
        done = hub.push(request.folder, request.repo_id, evaluation=request.evaluation, **where)
    print(f"{done.url} ({done.commit}): {'pushed' if done.changed else 'was up to date, no commit was made'}")
