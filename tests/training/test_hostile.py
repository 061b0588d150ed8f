"""F7, F15, F16: checkpoints that were damaged, or that somebody else made with a manifest to fit: nothing in them runs,
nothing is passed over."""

import hashlib
import json
import pickle
import shutil
import struct

import pytest
from safetensors.torch import load_file, save_file

from fastddpm.training.checkpoint import CorruptCheckpointError, newest
from tests.training.runs import some_images, train_here

TENSORS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
RECORDS = ("state.json", "config.json")
QUICK = ("model.safetensors", "state.json", "manifest.json")
"""One of each kind; the others are slow."""


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return open, (self.sentinel, "w")


def made_to_fit(checkpoint):
    """Write a manifest that says what the files now are."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["sha256"]
    files = [path for path in sorted(checkpoint.iterdir()) if path.name != "manifest.json"]
    manifest["files"] = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in files
    }
    own = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "sha256": own}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Images, and a run of ten steps on them."""
    images = some_images(tmp_path_factory.mktemp("hostile") / "images")
    return images, train_here(images.parent / "run", images, **{"train.num_images_seen": "80"})


@pytest.fixture
def run(tmp_path, trained):
    """The run's only checkpoint, in a copy of its folder, and what goes on with it."""
    images, folder = trained
    shutil.copytree(folder, tmp_path / "run")

    def go_on():
        train_here(tmp_path / "run", images, **{"train.num_images_seen": "96"})

    return tmp_path / "run" / "checkpoints" / "step-00000010", go_on


def pickled(sentinel):
    return pickle.dumps(Bomb(str(sentinel)))


HARM = {
    "pickle": pickled,
    "huge header": lambda _: struct.pack("<Q", 1 << 60) + b"{}",
    "long header": lambda _: struct.pack("<Q", 64) + b"{}",
    "nothing": lambda _: b"",
    "numbers beyond the file": lambda _: (
        struct.pack("<Q", 72)
        + b'{"a":{"dtype":"F32","shape":[9,9,9,9],"data_offsets":[0,26244]}}'.ljust(72)
        + b"\0" * 8
    ),
}


def flipped(data):
    """One bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*TENSORS, *RECORDS, "manifest.json")
    ],
)
def test_f7_each_file_damaged_in_each_way_is_named_and_the_checkpoint_before_is_taken(tmp_path, trained, name):
    two = {"train.num_images_seen": "80", "train.checkpoint_every": "5"}
    root = train_here(tmp_path / "run", trained[0], **two) / "checkpoints"
    old, new = (root / f"step-{step:08d}" / name for step in (5, 10))
    good = new.read_bytes()
    harm = {
        "truncated": good[: len(good) // 2], "zeros": bytes(len(good)), "one bit": flipped(good),
        "of before": old.read_bytes(), "gone": None,
    }  # fmt: skip
    if name == "config.json":
        del harm["of before"]  # the same
    assert newest(root)[1]["step"] == 10
    for how, content in harm.items():
        new.unlink() if content is None else new.write_bytes(content)
        with pytest.warns(UserWarning, match=rf"step-00000010.{name} .*; going back to the checkpoint before it"):
            assert newest(root)[1]["step"] == 5, how
        new.write_bytes(good)


@pytest.mark.parametrize("harm", HARM)
def test_f15_what_is_no_safetensors_is_refused_and_runs_nothing(run, tmp_path, harm):
    checkpoint, go_on = run
    for name in TENSORS:
        good = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(HARM[harm](tmp_path / "ran"))
        made_to_fit(checkpoint)
        with pytest.raises(ValueError, match=rf"{name} is no safetensors file \("):
            go_on()
        assert not (tmp_path / "ran").exists()
        (checkpoint / name).write_bytes(good)


@pytest.mark.parametrize(
    "content", [b"[]", b"not json", b"{}", b"[" * 100_000, None], ids=lambda content: repr(content)[:20]
)
@pytest.mark.parametrize("name", RECORDS)
def test_f15_records_that_are_no_json_of_ours_are_refused(run, tmp_path, name, content):
    checkpoint, go_on = run
    (checkpoint / name).write_bytes(pickled(tmp_path / "ran") if content is None else content)
    made_to_fit(checkpoint)
    with pytest.raises(ValueError, match=rf"{name} (is no JSON|lacks)"):
        go_on()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b"[" * 100_000, b'{"format": 1, "files": {"../x": {}}}'],
    ids=lambda content: repr(content)[:20],
)
def test_f15_a_manifest_that_is_none_is_refused(run, content):
    checkpoint, go_on = run
    (checkpoint / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match="no whole checkpoint in"):
        go_on()


@pytest.mark.parametrize("name", [*TENSORS, *RECORDS])
@pytest.mark.parametrize("is_listed", [True, False], ids=["listed in the manifest", "not listed"])
def test_f16_a_part_that_is_missing_is_an_error(run, name, is_listed):
    checkpoint, go_on = run
    (checkpoint / name).unlink()
    if is_listed:
        with pytest.raises(CorruptCheckpointError, match=f"{name} is missing"):
            newest(checkpoint.parent)
    else:
        made_to_fit(checkpoint)
    with pytest.raises(ValueError, match=f"{name} is missing"):
        go_on()


@pytest.mark.parametrize(
    ("name", "ending"), [("model.safetensors", ""), ("ema.safetensors", ""), ("optimizer.safetensors", "exp_avg")]
)
def test_f16_a_tensor_that_is_missing_is_named(run, name, ending):
    checkpoint, go_on = run
    tensors = load_file(checkpoint / name)
    gone = min(key for key in tensors if key.endswith(ending))
    del tensors[gone]
    save_file(tensors, checkpoint / name)
    made_to_fit(checkpoint)
    with pytest.raises(ValueError, match=f"{name} is of another model: 1 tensors differ, the first: {gone}"):
        go_on()
