"""Records of packaged configs: what quality others had after as many images."""

from fastddpm.config import RunConfig, differences, load_config

_DIGITS = "other real digits 33.5) on 6,000 MNIST digits, by 128 features of a classifier"
RECORDS: dict[str, tuple[dict[int, str], str, str]] = {
    "quickstart": ({70_400: "123", 173_440: "64", 784_512: "32"}, _DIGITS, "2026-11-25-time-to-quality"),
    "mnist-paper": ({183_168: "226"}, _DIGITS, "2026-11-25-time-to-quality"),
    "recommended-32": (
        {90_000: "11.4 and 12.3"},
        "other real ones 2.0) on 1,916 emoji, by 64 features of a small network",
        "2026-11-25-against-train-unconditional",
    ),
}
"""config -> FID by length of the run in images, of what, and its file in benchmarks/results"""
_AS_MANY = 1.1
_FREE = ("seed", "data.")
_HELD = ("data.image_size", "data.channels", "data.augment")


def record_in_words(config: RunConfig) -> str | None:
    """Say what the longest measured run of a packaged config came to, of those that were not longer than this one.

    Returns: None: this is no packaged config but for its images, or nothing was measured.
    """
    for name, (scores, measured_on, place) in RECORDS.items():
        reached = [count for count in scores if count <= _AS_MANY * config.train.num_images_seen]
        changed = (field for field, _, _, is_free in differences(load_config(name), config) if not is_free)
        if reached and all(field.startswith(_FREE) and not field.startswith(_HELD) for field in changed):
            return (
                f"{name} was measured after {max(reached):,} images: FID {scores[max(reached)]} ({measured_on}; yours "
                f"may be easier or harder (benchmarks/results/{place}.md)"
            )
    return None
