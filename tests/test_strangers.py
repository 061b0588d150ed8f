"""Files of strangers, drawn at random: each is read, or refused in a line, never with a traceback."""

import copy
import hashlib
import json
import math
import resource
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="the extra `test` has it")

import yaml
from diffusers import DDPMScheduler
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastddpm import FastDDPMPipeline
from fastddpm.config import load_config
from fastddpm.config.runs import find_run
from fastddpm.measures.calibration import Calibration
from fastddpm.measures.classifier import Classifier
from fastddpm.measures.features import load_judge
from fastddpm.measures.unlabelled_judge import UnlabelledFeatures
from fastddpm.training.checkpoint import newest
from tests.conftest import stock_unet, tiny_unet
from tests.measures.test_calibration import calibrated, judged, seen


def refusal(do) -> str:
    """What a ValueError or OSError says, which a verb ends with, in a second and 200 MiB; empty: there was none."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        do()
        said = ""
    except (ValueError, OSError) as error:
        said = "" if "trust_remote_code" in str(error) else str(error)  # in diffusers' own lines
    assert time.process_time() - started < 2, "of one second, on a busy machine"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10
    return said


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=12,
)
WILD = PLAIN | st.sampled_from([2**63, 2**18, -1, 0, 10**9, 10**400, 1e300, [2**18] * 3, [-4], "", [], {}])
WORDS = st.sampled_from([
    "&a ", "*a", "- ", ": ", "? ", "[", "]", "{", "}", ", ", "<<", "!!int ", "!!float ", "!!set ", "!!omap ", "!!null ",
    "!!binary ", "!!timestamp ", "| ", "> ", "\n", "\n  ", "'", '"', "---", "...", "%YAML 1.1", "1", "0x", "1:59", "#",
    "1e999", ".nan", "2026-99-99", "no", "seed", "train", "data", "model", "\t", "\0", "\x85",
])  # fmt: skip
TEXTS = st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=60) | PLAIN.map(yaml.safe_dump)


def check_text(text: str, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert "\n" not in refusal(lambda: load_config(path))
    assert "\n" not in refusal(lambda: find_run(folder))


@given(text=TEXTS)
@example(text="? !!binary ")
@example(text="'a\\nb': 1")
@example(text='"a\\nb": 1')
@settings(max_examples=40, deadline=None)
def test_any_text_is_settings_or_a_line(tmp_path_factory, text):
    check_text(text, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@given(text=TEXTS)
@settings(max_examples=5000, deadline=None)
def test_many_texts_are_settings_or_a_line(tmp_path_factory, text):
    check_text(text, tmp_path_factory.getbasetemp())


SETTINGS = [
    "seed", "data.image_size", "data.center_crop", "data.channels", "train.batch_size", "train.learning_rate",
    "train.micro_batch_size", "train.ema_decays", "train.timestep_focus", "model.block_out_channels",
    "model.patch_size", "model.attention_levels", "model.norm_num_groups", "scheduler.num_train_timesteps",
    "scheduler.beta_start", "sample.num_inference_steps", "watch.trackers",
]  # fmt: skip


@given(name=st.sampled_from(SETTINGS), value=WILD)
@settings(max_examples=60, deadline=None)
def test_any_value_of_a_setting_is_taken_or_refused_in_a_line(name, value):
    given = {"data.source": "pictures", "output_dir": "x", name: json.loads(json.dumps(value))}
    assert "\n" not in refusal(lambda: load_config(None, given))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Whole files of each kind."""
    root = tmp_path_factory.mktemp("strangers")
    for name, unet in (("paper", tiny_unet()), ("stock", stock_unet()), ("labels", stock_unet(num_class_embeds=3))):
        null_class = 2 if name == "labels" else None
        FastDDPMPipeline(unet, DDPMScheduler(num_train_timesteps=20), null_class).save_pretrained(root / name)
    (root / "judge").write_bytes(Classifier((1, 16, 16), 3, {"num_images": 4}).to_bytes())
    (root / "unlabelled").write_bytes(UnlabelledFeatures((1, 16, 16), {"num_images": 4}).to_bytes())
    (root / "calibration").write_bytes(calibrated(60).to_bytes())
    checkpoint = root / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 1, "step": 1, "files": {}, "versions": {}}))
    return root


def paths_in(value, path=()):
    """Ways to every value in a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inside for found in paths_in(each, (*path, key)))]


def changed(data, value):
    """The value with one to three values in it replaced, renamed or left out; now and then another altogether."""
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(paths_in(value)))
        new = copy.deepcopy(data.draw(WILD))  # it is changed too
        if not way:
            value = new if data.draw(st.integers(0, 9)) == 0 else value
            continue
        owner = value
        for key in way[:-1]:
            owner = owner[key]
        what = data.draw(st.sampled_from(["replace", "drop", "add"]))
        if what == "add" and isinstance(owner, dict):
            owner[data.draw(st.text(max_size=5))] = new
        elif what == "drop":
            del owner[way[-1]]
        else:
            owner[way[-1]] = new
        if not isinstance(value, dict | list):
            break
    return value


JSON_FILES = [f"{kind}/{name}" for kind in ("paper", "stock", "labels")
              for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")]  # fmt: skip


def check_saved_file(data, place, name):
    whole = (place / name).read_text()
    try:
        (place / name).write_text(json.dumps(changed(data, json.loads(whole))))
        folder = place / name.partition("/")[0]
        assert "\n" not in refusal(lambda: find_run(folder))
        assert "\n" not in refusal(lambda: FastDDPMPipeline.from_pretrained(folder))
    finally:
        (place / name).write_text(whole)


def check_manifest(data, place):
    path = place / "checkpoints" / "step-00000001" / "manifest.json"
    whole = path.read_text()
    manifest = changed(data, json.loads(whole))
    if isinstance(manifest, dict):  # made to fit
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    try:
        path.write_text(json.dumps(manifest))
        assert "\n" not in refusal(lambda: newest(place / "checkpoints"))
    finally:
        path.write_text(whole)


def check_tensors(data, place, name, load):
    with safe_open(place / name, "pt") as file:
        ((key, text),) = file.metadata().items()
    made = place / "changed.safetensors"
    save_file(load_file(place / name), made, {key: json.dumps(changed(data, json.loads(text)))})
    assert "\n" not in refusal(lambda: load(made))


def check_any(data, place):
    """Any of the files that strangers may have written."""
    kind = data.draw(st.sampled_from([*JSON_FILES, "manifest", "judge", "unlabelled", "calibration"]))
    if kind == "manifest":
        check_manifest(data, place)
    elif "/" in kind:
        check_saved_file(data, place, kind)
    else:
        check_tensors(data, place, kind, use_calibration if kind == "calibration" else use_judge)


def use_judge(path):
    return load_judge(path).description


def use_calibration(path):
    found = Calibration.load(path)
    if math.prod(found.bank.size) < 10**6:
        judged(found, seen(1))
    return f"{found.facts['false_alarms']:.0%} {found.image_threshold:.3f} {sum(found.start_timesteps)}"


@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_any_file_of_a_stranger_is_read_or_refused_in_a_line(place, data):
    check_any(data, place)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
@settings(max_examples=4000, deadline=None)
def test_many_files_of_strangers_are_read_or_refused_in_a_line(place, data):
    check_any(data, place)
