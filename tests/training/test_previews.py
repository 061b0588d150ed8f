import numpy as np

from fastddpm.training.previews import forget_later, history, save_preview, save_progress


def images(value, count=3):
    return np.full((count, 1, 4, 4), value, dtype=np.uint8)


def test_history_is_in_order_of_time_and_of_one_seed(tmp_path):
    for images_seen, seed in ((900, 0), (10_000, 0), (500, 7)):
        save_preview(tmp_path, images_seen, images(images_seen % 251), seed, None)
    found = history(tmp_path, 0, most=60)
    assert [images_seen for images_seen, _ in found] == [900, 10_000]
    assert (found[0][1] == 900 % 251).all()
    assert not list((tmp_path / "previews").glob(".*")), "no temporary file is left"


def test_later_previews_go_when_a_run_goes_back(tmp_path):
    for images_seen in (80, 120, 160):
        save_preview(tmp_path, images_seen, images(1), 0, None)
    forget_later(tmp_path, 120)
    assert sorted(p.name for p in (tmp_path / "previews").iterdir()) == [
        f"{n:012d}.{kind}" for n in (80, 120) for kind in ("npz", "png")
    ]  # fmt: skip
    forget_later(tmp_path / "nothing", 0)


def test_no_progress_of_one_time_and_the_fewest_samples_of_many(tmp_path):
    save_preview(tmp_path, 80, images(1), 0, None)
    save_progress(tmp_path, 0)
    assert not (tmp_path / "progress.png").exists()
    save_preview(tmp_path, 160, images(2, count=9), 0, None)
    save_progress(tmp_path, 0)
    assert (tmp_path / "progress.png").exists()
    assert (tmp_path / "progress.gif").exists()


def test_of_many_previews_a_few_are_read(tmp_path):
    for images_seen in range(1, 22):
        save_preview(tmp_path, images_seen, images(images_seen), 0, None)
    found = history(tmp_path, 0, most=5)
    assert [(images_seen, int(samples[0, 0, 0, 0])) for images_seen, samples in found] == [
        (number, number) for number in (1, 6, 11, 16, 21)
    ]  # fmt: skip
    assert history(tmp_path, 7, most=5) == []
