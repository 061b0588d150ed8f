"""`fastddpm export`: what runs without torch answers as torch does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastddpm import AnomalyPipeline, FusedDDPMScheduler, cli
from fastddpm.data.decode import decode
from fastddpm.data.fit import Fit
from fastddpm.data.named_pictures import Fitting, read_inputs
from fastddpm.data.opening import FORMATS, open_file
from fastddpm.measures.calibration import Calibration
from fastddpm.verbs.export import export, judge
from tests.conftest import stock_unet, tiny_unet

ALONE = """
import runpy, sys
for name in ("torch", "fastddpm", "diffusers"):
    sys.modules[name] = None
sys.argv[0] = sys.argv[1]
del sys.argv[1]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A model, its calibration, and pictures of it: larger, and in colour, so that they are made to fit."""
    root, draw = tmp_path_factory.mktemp("export"), np.random.default_rng(0)
    pipeline = AnomalyPipeline(tiny_unet(num_class_embeds=3), FusedDDPMScheduler(), 2)
    pipeline.save_pretrained(root / "model")
    pipeline.set_progress_bar_config(disable=True)
    normal = draw.integers(0, 60, (30, 1, 8, 8), dtype=np.uint8)
    made = pipeline.calibrate(torch.from_numpy(normal), known_images=torch.from_numpy(normal[::-1].copy() // 2))
    (root / "calibration.safetensors").write_bytes(made.to_bytes())
    (root / "pictures").mkdir()
    for number in range(22):
        pixels = draw.integers(0, 60 + 8 * number, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number:02}.png")
    return root


def exported(root, name, *words):
    given = ["export", root / "model", "--images", root / "pictures", "--out", root / name, *words]
    cli.main([str(word) for word in given])
    return root / name


@pytest.fixture(scope="module")
def detection(root):
    return exported(root, "detection", "--calibration", root / "calibration.safetensors")


def answers_of_torch(root):
    pipeline = AnomalyPipeline.from_pretrained(root / "model")
    pipeline.set_progress_bar_config(disable=True)
    images = read_inputs([str(root / "pictures")], Fitting.of(str(root / "model"), (1, 8, 8)))
    return pipeline(torch.from_numpy(images.images), Calibration.load(root / "calibration.safetensors"))


def check_rows(rows, expected):
    scores = np.array([row["score"] for row in rows])
    np.testing.assert_allclose(scores, expected.scores.numpy(), rtol=1e-4, atol=1e-4)
    assert [row["is_anomaly"] for row in rows] == expected.is_anomaly.tolist()
    assert {True, False} == {row["is_anomaly"] for row in rows}, "a test that tells nothing"


def test_a_detection_runs_without_torch_and_says_the_same(root, detection):
    pictures = sorted((root / "pictures").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", ALONE, detection / "judge.py", *pictures], capture_output=True, text=True, check=True
    )
    rows, expected = [json.loads(line) for line in done.stdout.splitlines()], answers_of_torch(root)
    check_rows(rows, expected)
    np.testing.assert_allclose([row["p_value"] for row in rows], expected.p_values.numpy())
    maps = np.stack([row["map"] for row in judge.judge(list(map(str, pictures)), detection)])
    np.testing.assert_allclose(maps, expected.maps.numpy(), rtol=1e-3, atol=1e-4)


def test_what_it_was_compared_on_stands_in_it(root, detection):
    about = json.loads((detection / "model.json").read_text())
    assert about["compared"]["pictures"] == 22
    assert about["compared"]["most_apart"] <= export.MOST_APART
    assert {path.name for path in detection.iterdir()} == {"model.onnx", "model.json", "judge.py"}


@pytest.mark.slow
def test_openvino_computes_in_single_precision(root):
    pytest.importorskip("openvino")
    folder = exported(root, "openvino", "--calibration", root / "calibration.safetensors", "--to", "openvino")
    assert {path.name for path in folder.iterdir()} == {"model.xml", "model.bin", "model.json", "judge.py"}
    check_rows(judge.judge(list(map(str, sorted((root / "pictures").iterdir()))), folder), answers_of_torch(root))


@pytest.mark.parametrize("kind", ["paper", pytest.param("stock", marks=pytest.mark.slow)])
def test_the_network_alone_takes_any_number_of_images(root, kind, tmp_path):
    unet = tiny_unet(num_class_embeds=3) if kind == "paper" else stock_unet()
    classes = [2] if kind == "paper" else []
    AnomalyPipeline(unet, FusedDDPMScheduler(), *classes).save_pretrained(tmp_path / "model")
    words = ["export", tmp_path / "model", "--images", root / "pictures", "--out", tmp_path / "network"]
    cli.main([str(word) for word in words])
    about = json.loads((tmp_path / "network" / "model.json").read_text())
    run = judge.opened(tmp_path / "network", about)
    for count in (1, 5):
        given = {"sample": torch.randn(count, 1, 8, 8), "timestep": torch.arange(count) * 150}
        labels = torch.arange(count) % 3 if classes else None
        with torch.no_grad():
            expected = unet(*given.values(), class_labels=labels).sample.numpy()
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        (found,) = run(arrays | ({} if labels is None else {"class_labels": labels.numpy()}))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_other_answers_than_torchs_are_not_written(root, monkeypatch, capsys):
    monkeypatch.setattr(export, "MOST_APART", -1.0)
    with pytest.raises(SystemExit):
        exported(root, "wrong", "--calibration", root / "calibration.safetensors")
    assert "onnx answers otherwise than torch" in capsys.readouterr().err
    assert not (root / "wrong").exists()


@pytest.mark.parametrize(
    "fit",
    [
        Fit(1, (8, 8)),
        Fit(3, (8, 12), "pad", background=(9, 90, 200)),
        Fit(3, (12, 8), "stretch"),
        Fit(3, (8, 8), center_crop=14, background=(9, 90, 200)),
        Fit(1, None, center_crop=12, random_crop=8, background=(9, 90, 200)),
    ],
)
def test_pictures_are_made_to_fit_as_the_runs_own(fit, tmp_path):
    draw = np.random.default_rng(1)
    colour = Image.fromarray(draw.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    see_through = Image.fromarray(draw.integers(0, 256, (20, 30, 4), dtype=np.uint8), "RGBA")
    pictures = {"colour": colour, "gray": colour.convert("L"), "palette": colour.quantize(9)}
    if fit.background:
        pictures["see_through"] = see_through
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png", exif=turned)
    size = fit.size or (8, 8)
    about = {
        "mode": "L" if fit.channels == 1 else "RGB", "size": size, "shown": size, "fit": fit.way if fit.size else None,
        "center_crop": fit.center_crop, "random_crop": fit.random_crop, "background": fit.background,
        "color_management": "srgb", "formats": list(FORMATS),
    }  # fmt: skip
    for path in sorted(tmp_path.iterdir()):
        expected, _ = decode(lambda path=path: open_file(path), fit)
        np.testing.assert_array_equal(judge.fitted(str(path), about), expected, err_msg=path.name)


def test_what_the_run_would_not_read_so_is_refused_by_the_runner_too(tmp_path, detection):
    about, one = json.loads((detection / "model.json").read_text()), Image.new("L", (8, 8))
    one.save(tmp_path / "pages.tif", save_all=True, append_images=[one])
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    one.save(tmp_path / "tagged.avif")
    for name, says in (("pages.tif", "has 2 pages"), ("deep.tif", "8 bits"), ("tagged.avif", "cannot identify")):
        with pytest.raises((ValueError, OSError), match=says):
            judge.fitted(str(tmp_path / name), about)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "{root}/pictures"], "pictures holds other things than an export; choose another --out"),
        (["--out", "{root}/new"], "is no run folder, so it has no held-out pictures to compare on"),
        (["--out", "{root}/new", "--to", "tflite"], "tflite"),
        (["--out", "{root}/new", "--calibration", "{root}/nothing.safetensors"], "nothing.safetensors is no file"),
    ],
)
def test_what_cannot_be_exported_is_one_line(root, capsys, words, says):
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(root / "model"), *(word.format(root=root) for word in words)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_missing_runtime_is_named(root, capsys, monkeypatch):
    monkeypatch.setitem(export._NEEDS, "onnx", ("onnx", "no_such_runtime"))
    with pytest.raises(SystemExit):
        exported(root, "new")
    assert (
        "--to onnx needs no_such_runtime, not installed; run pip install 'fastddpm[export]'" in capsys.readouterr().err
    )
