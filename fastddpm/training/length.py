"""The length of a run in words."""

from fastddpm.process import counted

FEW, OFTEN = 1_000, 500
"""training images, and times that each is seen: fewer and more often, and a run is told what that means"""


def length_in_words(num_images: int, num_seen: int, is_flipped: bool) -> str:
    """Say how often a run sees each picture; where these are few, what that means.

    Args:
        num_images: training images.
        num_seen: length of the run, in images.
        is_flipped: whether training mirrors them.
    """
    times = num_seen / num_images
    said = (
        f"length: {num_seen:,} images; an epoch is {num_images:,}, so each is seen {times:,.{int(times < 10)}f} times"
    )
    if num_images >= FEW or times < OFTEN:
        return said
    flips = "" if is_flipped else ", --train.horizontal_flip true where mirrored ones are right too"
    return (
        f"{said}. A model of few pictures, seen often, comes to repeat them: nearest.png shows whether it does; more "
        f"pictures help most{flips}, or a lower --train.num_images_seen"
    )


def in_minutes(seconds: float) -> str:
    """A length of time, as rough as it is known."""
    if seconds < 90:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"
