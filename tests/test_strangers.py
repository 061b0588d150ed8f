"""Files of strangers, drawn at random: each is read, or refused in a line, never with a traceback."""

import json
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="the extra `test` has it")

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastddpm.config import load_config
from fastddpm.config.runs import find_run


def refusal(do) -> str:
    """What a ValueError or OSError says, which a verb ends with; empty: there was none."""
    try:
        do()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


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
@settings(max_examples=40, deadline=1000)
def test_any_text_is_settings_or_a_line(tmp_path_factory, text):
    check_text(text, tmp_path_factory.getbasetemp())


@pytest.mark.slow
@given(text=TEXTS)
@settings(max_examples=5000, deadline=1000)
def test_many_texts_are_settings_or_a_line(tmp_path_factory, text):
    check_text(text, tmp_path_factory.getbasetemp())


SETTINGS = [
    "seed", "data.image_size", "data.center_crop", "data.channels", "train.batch_size", "train.learning_rate",
    "train.micro_batch_size", "train.ema_decays", "train.timestep_focus", "model.block_out_channels",
    "model.patch_size", "model.attention_levels", "model.norm_num_groups", "scheduler.num_train_timesteps",
    "scheduler.beta_start", "sample.num_inference_steps", "watch.trackers",
]  # fmt: skip


@given(name=st.sampled_from(SETTINGS), value=WILD)
@settings(max_examples=60, deadline=1000)
def test_any_value_of_a_setting_is_taken_or_refused_in_a_line(name, value):
    given = {"data.source": "pictures", "output_dir": "x", name: json.loads(json.dumps(value))}
    assert "\n" not in refusal(lambda: load_config(None, given))
