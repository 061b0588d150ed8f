"""docs/notebook.ipynb: short, without outputs, and run from its first cell to its last."""

import contextlib
import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOTEBOOK = json.loads((Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TINY = {
    "data.image_size": 16, "data.num_held_out": 24, "model.block_out_channels": [8, 16], "model.attention_head_dim": 8,
    "scheduler.num_train_timesteps": 20, "train.batch_size": 8, "train.num_images_seen": 32, "train.num_threads": 1,
    "train.lr_warmup_steps": 1, "train.mixed_precision": "no", "sample.num_images": 4, "sample.num_inference_steps": 4,
}  # fmt: skip


def test_the_notebook_is_kept_without_outputs():
    assert not [cell for cell in CODE if cell["outputs"] or cell["execution_count"] is not None]


@pytest.fixture
def folder(tmp_path):
    """32 pictures of one's own: colour, of another size than the model's."""
    rng, made = np.random.default_rng(0), tmp_path / "mine"
    made.mkdir()
    for place in range(32):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(made / f"{place:02d}.png")
    return made


def test_the_notebook_runs_on_a_folder_named_in_its_first_line(folder, tmp_path, monkeypatch, request):
    pytest.importorskip("ipywidgets")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    first, settings, *others = ("".join(cell["source"]) for cell in CODE)
    assert first.startswith('PICTURES = "digits"')
    assert "\n" not in first
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell, shown = InteractiveShell.instance(), []
    request.addfinalizer(InteractiveShell.clear_instance)
    with contextlib.chdir(tmp_path):
        for source in (f"PICTURES = {str(folder)!r}", f"{settings}\nSETTINGS |= {TINY}", *others):
            with capture_output() as captured:
                result = shell.run_cell(source)
            result.raise_error()
            displayed = [output.data for output in captured.outputs]
            shown.append([*chain(*displayed), *shell.display_formatter.format(result.result)[0]])
    assert all("image/png" in kinds for kinds in shown[2:]), shown
