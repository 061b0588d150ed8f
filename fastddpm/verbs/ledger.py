"""`fastddpm ledger`: which images each step of a run sees."""

from fastddpm.config.bounded_types import Count, File, strict


@strict
class LedgerRequest:
    """Write which images each step of a run saw, or will see, and at which timesteps: one JSON row per step."""

    run: File
    """Run folder."""
    out: File
    """File for the rows, .jsonl."""
    first: Count = 1
    """First step."""
    last: Count | None = None
    """Last step; null: the last one of the run."""


def ledger(request: LedgerRequest) -> None:
    """Write the file and say how often images were seen.

    Raises: ValueError: no run there, or no such steps.
    """
    from fastddpm.training.ledger import write_ledger

    print(f"{request.out}: {write_ledger(request.run, request.out, request.first, request.last)}")
