import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fastddpm.config import DataConfig
from fastddpm.data import ingest, load_splits, summary
from fastddpm.data.changed_pictures import HELD_OUT, TRAIN, _draw_new
from fastddpm.data.groups import drawn_whole, joined
from fastddpm.data.named_pictures import named_images
from fastddpm.data.sources.base import sources_in
from tests.data.test_siblings import shots, textures
from tests.training.runs import train_here


def saved(folder, images, name="part{:02d}_{:02d}.png", per_part=8):
    folder.mkdir(parents=True)
    for place, image in enumerate(images):
        pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
        Image.fromarray(pixels).save(folder / name.format(place // per_part, place % per_part))
    return folder


def split(folder, seed=0, **options):
    """Names of the pictures that are trained on, and of those held out; pixels say which is which."""
    config = DataConfig(source=str(folder), num_held_out=24, cache_dir=str(folder.parent / "cache"), **options)
    return load_splits(config, seed=seed)


def parts_of(subset, per_part=8):
    return set((subset.indices // per_part).tolist())


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """20 parts of 8 shots each."""
    return saved(tmp_path_factory.mktemp("groups") / "parts", shots(20, 8))


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_are_never_parted(parts, seed, caplog):
    found = split(parts, seed)
    assert len(found.held_out) == 24
    assert not parts_of(found.held_out) & parts_of(found.train)
    assert found.num_together >= 150
    assert f"{found.num_together} images belong together with others" in caplog.text
    assert summary(found)["num_together"] == found.num_together
    assert found.num_parted == 0


def test_parted_on_purpose_it_is_said(parts, caplog):
    found = split(parts, group="none")
    assert parts_of(found.held_out) & parts_of(found.train)
    assert found.num_parted > 20
    assert f"{found.num_parted} of 24 held-out images have near-copies" in caplog.text


@pytest.mark.parametrize("rule", [r"part\d+", r"part(\d+)_", "0"])
def test_names_and_folders_say_what_belongs_together(tmp_path, rule):
    name = "part{:02d}/{:02d}.png" if rule == "0" else "part{:02d}_{:02d}.png"
    if rule == "0":
        for part in range(20):
            (tmp_path / "images" / f"part{part:02d}").mkdir(parents=True)
    images = textures(160, side=16)
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    for place, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name.format(place // 8, place % 8))
    found = split(folder, group=rule, label_column="none")
    assert not parts_of(found.held_out) & parts_of(found.train)
    assert len(parts_of(found.held_out)) == 3


def test_what_was_made_from_one_picture_stays_together(tmp_path):
    folder = saved(tmp_path / "made", textures(160, side=16), name="{:02d}-{:02d}.png")
    names = sorted(path.name for path in folder.iterdir())
    rows = [{"file_name": name, "sources": [f"photo {place // 8}"]} for place, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = split(folder)
    assert not parts_of(found.held_out) & parts_of(found.train)
    assert found.num_together == 160


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("(", "is no regular expression"),
        ("frame", "matches no name, such as part00_00.png, and is no column"),
        ("3", "lies in 0 folders"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(parts, rule, words):
    with pytest.raises(ValueError, match="data.group") as error:
        split(parts, group=rule)
    assert words in str(error.value)


def test_a_blend_joins_what_it_was_made_from():
    group = joined(np.arange(5), [(0, ["a"]), (1, ["b"]), (2, ["a", "b"]), (3, ["c"])])
    assert group[0] == group[1] == group[2]
    assert len({group[0], group[3], group[4]}) == 3
    assert sources_in(json.dumps(["x.png", {"row": 3}])) == ["x.png", '{"row": 3}']
    assert sources_in("photo 1") == ["photo 1"]


def test_groups_are_drawn_whole_and_no_class_is_emptied():
    order, groups = np.array([3, 0, 1, 2, 4, 5]), np.array([0, 0, 0, 3, 4, 5])
    assert drawn_whole(order, np.arange(6), 3, None).tolist() == [3, 0, 1]
    assert drawn_whole(order, groups, 3, None).tolist() == [3, 4, 5], "the group of three has no room after the first"
    assert sorted(drawn_whole(order, groups, 4, None).tolist()) == [0, 1, 2, 3]
    labels = np.array([0, 0, 0, 1, 0, 0])
    assert 3 not in drawn_whole(order, np.arange(6), 3, labels)


def test_nothing_can_be_held_out_of_one_group(tmp_path):
    folder = saved(tmp_path / "one", shots(1, 12), per_part=12)
    with pytest.raises(ValueError, match="no image of .* can be held out"):
        load_splits(DataConfig(source=str(folder), num_held_out=4, group="part", cache_dir=str(tmp_path / "c")), seed=0)


def test_what_is_measured_on_parted_pictures_says_so(parts, tmp_path, capsys):
    run = train_here(
        tmp_path / "run", parts, **{"data.group": "none", "data.num_held_out": "24", "train.num_images_seen": "8"}
    )
    capsys.readouterr()
    facts = named_images(f"{run}:held_out").facts
    assert facts["num_near_trained"] > 20
    assert f"{facts['num_near_trained']} of 24 held-out images have near-copies" in capsys.readouterr().out


def test_new_shots_go_where_the_others_of_their_part_are(tmp_path):
    """Also when as many are held out as are asked for."""
    folder = saved(tmp_path / "parts", shots(20, 8))
    config = DataConfig(source=str(folder), num_held_out=24, cache_dir=str(tmp_path / "cache"))
    images, found = ingest(config, show_progress=False), load_splits(config, seed=0, show_progress=False)
    wanted = np.zeros(len(images.hashes), np.uint8)
    wanted[found.train.indices], wanted[found.held_out.indices] = TRAIN, HELD_OUT
    new = np.arange(0, len(wanted), 8)  # the first shot of each part was not there
    parts = wanted.copy()
    parts[new] = 0
    _draw_new(new, parts, images, replace(config, num_held_out=16))
    assert np.array_equal(parts, wanted)
