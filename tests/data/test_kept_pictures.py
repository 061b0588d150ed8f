"""What a run keeps of its pictures, and what becomes of it when they change."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastddpm.config import RunConfig, to_yaml
from fastddpm.config.settings import DataConfig
from fastddpm.data import KeptPictures, load_kept, load_splits, splits_of_run
from fastddpm.data.named_pictures import named_images


def draw(rng, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(path)


def content(subset):
    return [subset.image(place).tobytes() for place in range(len(subset))]


def keep(run, config, splits):
    """As training does before its first step, and after each change that it was allowed."""
    run.mkdir(exist_ok=True)
    KeptPictures.of(splits, config.data.source).write(run)
    (run / "config.yaml").write_text(to_yaml(config))


def go_on(run, config, **changed):
    data = replace(config.data, **changed)
    return load_kept(data, KeptPictures.read(run), "WAYS", seed=config.seed)


@pytest.fixture
def begun(tmp_path):
    """Twenty pictures, and a run that holds out six."""
    rng = np.random.default_rng(0)
    for number in range(20):
        draw(rng, tmp_path / "in" / f"{number:02d}.png")
    data = DataConfig(source=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"), num_held_out=6)
    config = RunConfig(output_dir=str(tmp_path / "run"), data=data)
    keep(tmp_path / "run", config, load_splits(data, seed=0))
    return config, tmp_path / "run", tmp_path / "in", rng


def test_what_was_kept_is_what_was_drawn(begun):
    config, run, _, _ = begun
    drawn, (_, kept) = load_splits(config.data, seed=0), splits_of_run(run)
    assert content(kept.train) == content(drawn.train)
    assert content(kept.held_out) == content(drawn.held_out)
    assert kept.fingerprint == drawn.fingerprint


def test_equal_pictures_elsewhere_in_another_order_by_other_names_are_the_same(begun, tmp_path, caplog):
    config, run, images, _ = begun
    drawn = load_splits(config.data, seed=0)
    for number, path in enumerate(sorted(images.iterdir())):
        Image.open(path).save(images / f"{(number * 7) % 20 + 100}.bmp")
        path.unlink()
    shutil.move(images, tmp_path / "moved")
    with pytest.raises(ValueError, match=r"lay at .*/in, and are not there; put them back, say where they are now"):
        splits_of_run(run)
    kept = go_on(run, config, source=str(tmp_path / "moved"))
    assert "the run's own pictures, named or ordered otherwise" in caplog.text
    assert content(kept.train) == content(drawn.train)
    assert content(kept.held_out) == content(drawn.held_out)
    assert kept.fingerprint == drawn.fingerprint
    keep(run, config, kept)
    assert "/in" in KeptPictures.read(run).facts["place"]


def test_a_relative_source_means_the_same_pictures_from_everywhere(begun, tmp_path, monkeypatch):
    config, run, _, rng = begun
    monkeypatch.chdir(tmp_path)
    config = replace(config, data=replace(config.data, source="in"))
    keep(run, config, load_splits(config.data, seed=0))
    mine = content(splits_of_run(run)[1].held_out)
    for number in range(20):
        draw(rng, tmp_path / "other" / "in" / f"{number:02d}.png")
    monkeypatch.chdir(tmp_path / "other")
    assert content(splits_of_run(run)[1].held_out) == mine
    with pytest.raises(ValueError, match=r"20 changed \(00.png, 01.png, 02.png, 03.png, 04.png, ...\)"):
        go_on(run, config)  # whoever trains says which pictures, as seen from here
    monkeypatch.chdir(tmp_path / "cache")
    assert content(go_on(run, config).held_out) == mine


def test_changed_pictures_are_told_by_counts_and_names(begun):
    config, run, images, rng = begun
    for name in ("20.png", "21.png", "22.png", "03.png"):
        draw(rng, images / name)
    (images / "05.png").unlink()
    (images / "06.png").rename(images / "renamed.png")
    shutil.copy(images / "07.png", images / "copy.png")
    said = r"4 added \(20.png, 21.png, 22.png, copy.png\), 1 removed \(05.png\), 1 changed \(03.png\)"
    with pytest.raises(ValueError, match=f"{images} is not what the run was trained on: {said}; WAYS"):
        go_on(run, config)
    with pytest.raises(ValueError, match=f"{said}; put them back, or let the run go on with .*--data.allow_change"):
        named_images(f"{run}:held_out")


def test_pictures_of_another_class_are_told_and_other_classes_are_no_change_to_a_network_that_numbers_them(tmp_path):
    rng, images = np.random.default_rng(0), tmp_path / "in"
    for number in range(8):
        draw(rng, images / "ab"[number % 2] / f"{number}.png")
    data = DataConfig(source=str(images), cache_dir=str(tmp_path / "cache"), num_held_out=2, allow_change=True)
    config = RunConfig(output_dir=str(tmp_path / "run"), data=data)
    keep(tmp_path / "run", config, load_splits(data, seed=0))
    (images / "a" / "0.png").rename(images / "b" / "0.png")
    with pytest.raises(ValueError, match=r"on: 1 of another class \(b/0.png\); WAYS"):
        go_on(tmp_path / "run", config, allow_change=False)
    draw(rng, images / "c" / "8.png")
    kept, ways = KeptPictures.read(tmp_path / "run"), "WAYS"
    with pytest.raises(ValueError, match="its classes were a, b, now a, b, c; the network was built for its classes"):
        load_kept(data, kept, ways, seed=0, keeps_classes=True)
    assert load_kept(data, kept, ways, seed=0).train.num_classes == 3


def test_what_is_added_never_moves_what_is_held_out(begun):
    config, run, images, rng = begun
    _, before = splits_of_run(run)
    for number in range(30, 70):
        draw(rng, images / f"{number}.png")
    after = go_on(run, config, allow_change=True, num_held_out=0.25)
    assert content(after.held_out)[:6] == content(before.held_out)
    assert content(after.train)[:14] == content(before.train)
    assert (len(after.held_out), len(after.train)) == (20, 40)  # as many as detect wants
    assert after.fingerprint != before.fingerprint


def test_what_was_trained_on_comes_back_to_training_also_where_held_out_ones_are_wanted(begun):
    config, run, images, _ = begun
    before, there = splits_of_run(run)[1], {Image.open(path).tobytes(): path for path in images.iterdir()}
    trained, held_out = content(before.train), content(before.held_out)
    away = {there[one]: there[one].read_bytes() for one in [*trained[:5], *held_out[:5]]}
    for path in away:
        path.unlink()
    keep(run, config, go_on(run, config, allow_change=True))
    for number, one in enumerate(trained[:5]):
        (images / f"back{number}.png").write_bytes(away[there[one]])
    after = go_on(run, config, allow_change=True)
    assert sorted(content(after.train)) == sorted(trained)
    assert content(after.held_out) == held_out[5:]


def test_num_images_stays_the_number_of_training_images(begun):
    config, run, images, rng = begun
    some = replace(config, data=replace(config.data, num_images=10))
    keep(run, some, load_splits(some.data, seed=0))
    (images / "copy.png").write_bytes((images / "03.png").read_bytes())
    draw(rng, images / "new.png")
    after = go_on(run, some, allow_change=True)
    assert (len(after.held_out), len(after.train)) == (6, 10)


def looked_up(run):
    """Splits, as detect, evaluate and the ledger find them; None: refused, as the pictures changed."""
    try:
        return splits_of_run(run)[1]
    except ValueError as error:
        if "is not what the run was trained on" not in str(error):
            raise
        return None


DONE = ("add", "remove", "back", "rename", "encode", "edit", "copy", "swap", "move")
"""what people do to pictures: `edit` gives a name other pixels, as saving by JPEG does; `move` is to a folder"""
DOING = st.tuples(st.sampled_from(DONE), st.integers(0, 99), st.integers(0, 99))


def do(what, one, other, new, gone, rng):
    """Do something to the picture at `one`.

    Args:
        other: of another, for `swap`.
        new: name for a new one, without its ending.
        gone: contents of those that were removed.
    """
    if what == "remove":
        gone.append((one.suffix, one.read_bytes()))
        one.unlink()
    elif what == "back" and gone:
        suffix, data = gone.pop()
        new.with_suffix(suffix).write_bytes(data)
    elif what == "rename":
        one.rename(new.with_suffix(one.suffix))
    elif what == "move":
        new.mkdir()
        one.rename(new / one.name)
    elif what == "encode":
        Image.open(one).save(one.with_suffix(".bmp" if one.suffix == ".png" else ".png"))
        one.unlink()
    elif what == "edit":
        draw(rng, one)
    elif what == "copy":
        new.with_suffix(one.suffix).write_bytes(one.read_bytes())
    elif what == "swap" and one.suffix == other.suffix:
        mine = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(mine)
    else:
        draw(rng, new.with_suffix(".png"))


@settings(max_examples=18, deadline=None, derandomize=True, phases=[Phase.generate])  # to shrink takes minutes
@given(
    count=st.integers(12, 20), asked=st.sampled_from([3, 0.2, 5]), most=st.sampled_from([None, 6]),
    turns=st.lists(st.tuples(st.booleans(), st.lists(DOING, min_size=1, max_size=3)), min_size=3, max_size=8),
)  # fmt: skip
def test_held_out_pictures_were_never_trained_on(count, asked, most, turns):
    """Turns are what is done to the pictures, and whether training then goes on with them."""
    with tempfile.TemporaryDirectory() as folder:
        rng, images, run, gone = np.random.default_rng(0), Path(folder, "in"), Path(folder, "run"), []
        for number in range(count):
            draw(rng, images / f"{number:02d}.png")
        data = DataConfig(source=str(images), cache_dir=str(Path(folder, "cache")), num_held_out=asked, num_images=most)
        config = RunConfig(output_dir=str(run), data=data)
        splits = load_splits(data, seed=0)
        keep(run, config, splits)
        train, held_out = content(splits.train), content(splits.held_out)
        seen = set(train)
        for turn, (goes_on, doings) in enumerate(turns):
            for step, (what, first, second) in enumerate(doings):
                paths = sorted(path for path in images.rglob("*") if path.is_file())
                one, other = paths[first % len(paths)], paths[second % len(paths)]
                if what != "remove" or len(paths) > 8:
                    do(what, one, other, images / f"new{turn}-{step}", gone, rng)
            found = looked_up(run)
            assert found is None or (content(found.train), content(found.held_out)) == (train, held_out)
            splits = load_kept(replace(data, allow_change=True), KeptPictures.read(run), "", seed=0)
            now, kept_out = content(splits.train), content(splits.held_out)
            there = {np.asarray(Image.open(path)).tobytes() for path in images.rglob("*") if path.is_file()}
            assert not (seen | set(now)) & set(kept_out)
            assert [one for one in kept_out if one in held_out] == [one for one in held_out if one in there]
            assert {one for one in train if one in there} <= set(now)
            if goes_on:
                keep(run, config, splits)
                train, held_out, seen = now, kept_out, seen | set(now)
