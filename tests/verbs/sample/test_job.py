"""`fastddpm sample` on one process: steady, resumable, never mixed."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastddpm import FastDDPMPipeline, FusedDDPMScheduler
from fastddpm.verbs.sample import all_processes as job
from tests.conftest import tiny_unet
from tests.forked import run_python
from tests.training.runs import train_here

NAMES = ("folder", "x.npz", "x.parquet", "x.png")


def contents(path):
    """Every byte of what was asked for."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in sorted(path.iterdir())}
    return path.read_bytes()


@pytest.fixture
def drawn(monkeypatch):
    """The micro-batches that are drawn from now on; an entry that is set to an error is raised before it is drawn."""
    indices, original, errors = [], job.draw_micro_batch, {}

    def draw_micro_batch(pipeline, series, index, bar):
        if index in errors:
            raise errors.pop(index)
        indices.append(index)
        return original(pipeline, series, index, bar)

    monkeypatch.setattr(job, "draw_micro_batch", draw_micro_batch)
    return indices, errors


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_job_goes_on_with_the_same_bytes(model, tmp_path, draw, drawn, capsys, name):
    indices, errors = drawn
    straight = contents(draw(model, tmp_path / "straight" / name))
    assert indices == [0, 1, 2]
    errors[2] = KeyboardInterrupt()
    with pytest.raises(SystemExit, match="130"):
        draw(model, tmp_path / "out" / name)
    indices.clear()
    capsys.readouterr()
    assert contents(draw(model, tmp_path / "out" / name)) == straight
    assert indices == [2], "only what was missing"
    assert f"10 images, 8 of them from before: {tmp_path / 'out' / name} (2 in " in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name], "the parts are gone"


def test_a_killed_job_goes_on_with_the_same_bytes(model, tmp_path, draw):
    straight = contents(draw(model, tmp_path / "straight.parquet"))
    code = (
        "import os, signal, sys\n"
        "from fastddpm import cli\n"
        "from fastddpm.verbs.sample import formats\n"
        "original = os.replace\n"
        "def replace(source, target):\n"
        "    if str(target).endswith('000000001.npy'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    original(source, target)\n"
        "os.replace = replace\n"
        "cli.main(sys.argv[1:])\n"
    )
    out = tmp_path / "out.parquet"
    words = ["--num_images", "10", "--micro_batch_size", "4", "--num_inference_steps", "4", "--num_threads", "1"]
    done = run_python(["-c", code, "sample", model, "--out", out, *words])
    assert done.returncode == -9
    parts = sorted(p.name for p in (tmp_path / ".out.parquet.parts").iterdir())
    assert "000000000.npy" in parts
    assert ".000000001.npy.tmp" in parts, "killed between writing and renaming"
    assert contents(draw(model, out)) == straight


def test_a_folder_that_was_only_begun_is_gone_on_with(model, tmp_path, draw):
    """R6: killed before it wrote what is drawn there."""
    straight = contents(draw(model, tmp_path / "straight"))
    (tmp_path / "out" / ".parts").mkdir(parents=True)
    (tmp_path / "out" / ".parts" / "..sample.json.tmp").write_text("{")
    assert contents(draw(model, tmp_path / "out")) == straight


@pytest.mark.parametrize("name", ["folder", "x.npz", "x.parquet"])
def test_parts_that_are_left_of_a_whole_result_go(model, tmp_path, draw, drawn, name):
    """R6: killed while they were removed."""
    out = draw(model, tmp_path / name)
    straight = contents(out)
    drawn[0].clear()
    parts = out / ".parts" if out.is_dir() else out.with_name(f".{name}.parts")
    parts.mkdir()
    draw(model, out)
    assert not parts.exists()
    assert contents(out) == straight
    assert drawn[0] == []


def flipped(content):
    return content[:-60] + bytes([content[-60] ^ 1]) + content[-59:]


@pytest.mark.parametrize("name", ["folder", "x.npz"])
@pytest.mark.parametrize("damage", [lambda _: b"", lambda content: content[: len(content) // 2], flipped])
def test_a_damaged_part_is_drawn_again(model, tmp_path, draw, drawn, capsys, name, damage):
    """R5: what a machine that lost its power, or a failing disk, leaves."""
    straight = contents(draw(model, tmp_path / "straight" / name))
    drawn[1][2] = KeyboardInterrupt()
    with pytest.raises(SystemExit, match="130"):
        draw(model, tmp_path / name)
    parts = tmp_path / ".x.npz.parts" / "000000000.npy" if name == "x.npz" else tmp_path / name / "000001.png"
    parts.write_bytes(damage(parts.read_bytes()))
    capsys.readouterr()
    assert contents(draw(model, tmp_path / name)) == straight
    assert capsys.readouterr().out.count("1 damaged file of an earlier start: drawn again\n") == 1


def test_other_settings_are_refused_by_name(model, tmp_path, draw, drawn, refused):
    _, errors = drawn
    out = tmp_path / "out"
    errors[1] = KeyboardInterrupt()
    with pytest.raises(SystemExit, match="130"):
        draw(model, out)
    for state in ("unfinished", "finished"):
        assert "seed was 0, now 7; go on with those, choose another --out, or remove" in refused(
            model, out, "--seed", 7
        )
        line = refused(model, out, "--scheduler", "ddim", "--precision", "bf16")
        assert "scheduler was 'ddpm', now 'ddim'; precision was 'fp32', now 'bf16'; weights was" in line, state
        draw(model, out)
    unet = tiny_unet(num_class_embeds=4, time_embedding_dim=4)
    FastDDPMPipeline(unet, FusedDDPMScheduler(20, beta_end=0.5)).save_pretrained(tmp_path / "other")
    assert "images drawn with other settings: weights was '" in refused(tmp_path / "other", out)


def test_finished_images_are_left_as_they_are(model, tmp_path, draw, drawn, capsys):
    for name in ("folder", "x.npz", "x.parquet"):
        out = draw(model, tmp_path / name)
        before = contents(out)
        drawn[0].clear()
        draw(model, out)
        assert drawn[0] == []
        assert f"10 images are there already: {out}" in capsys.readouterr().out
        assert contents(out) == before


def test_files_of_others_are_not_written_over(model, tmp_path, refused):
    np.savez(tmp_path / "mine.npz", images=np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "mine.parquet").write_text("no table")
    for name in ("mine.npz", "mine", "mine.parquet"):
        line = refused(model, tmp_path / name)
        assert line == f"{tmp_path / name} holds something else; choose another --out, or remove it"


def test_images_are_on_the_disk_while_others_are_drawn(model, tmp_path, draw, monkeypatch):
    original, on_disk = job.draw_micro_batch, []

    def draw_micro_batch(pipeline, series, index, bar):
        on_disk.append(len(bar._output.done()))
        return original(pipeline, series, index, bar)

    monkeypatch.setattr(job, "draw_micro_batch", draw_micro_batch)
    draw(model, tmp_path / "x.npz", "--micro_batch_size", 1)
    assert len(on_disk) == 10
    assert all(done >= index - 1 for index, done in enumerate(on_disk)), "one is written while the next is drawn"


def test_a_drawing_of_a_moment_says_what_it_drew_and_no_bar_in_a_log(model, tmp_path, draw, capsys):
    draw(model, tmp_path / "x.npz")
    said = capsys.readouterr()
    assert "10 images by ddpm in 4 steps: cpu, 1 process of 1 thread, fp32" in said.out
    assert f"10 images: {tmp_path / 'x.npz'} (10 in " in said.out
    assert said.out.strip().endswith(" images/s)")
    assert said.err == ""


def test_two_jobs_do_not_write_to_one_place(model, tmp_path, draw, refused, monkeypatch):
    original, lines = job.draw_micro_batch, []

    def draw_micro_batch(pipeline, series, index, bar):
        if not lines:
            lines.append("")  # the job inside is refused before it draws
            lines.append(refused(model, tmp_path / "out"))
        return original(pipeline, series, index, bar)

    monkeypatch.setattr(job, "draw_micro_batch", draw_micro_batch)
    draw(model, tmp_path / "out")
    assert lines[1] == f"{tmp_path / 'out'} is in use by a running job; wait for it, or choose another --out"


@pytest.mark.parametrize("name", ["folder", "x.npz"])
def test_no_permission(model, refused, name):
    """Where not even root may make a folder."""
    line = refused(model, f"/sys/kernel/{name}")
    assert "may not be read or written by this user (" in line
    assert line.endswith("; change its permissions, or choose another --out")


@pytest.mark.slow
def test_full_disk_says_so_and_keeps_what_is_whole(model, tmp_path):
    out, most = tmp_path / "x.npz", 700
    words = ["--num_images", "10", "--micro_batch_size", "4", "--num_inference_steps", "1", "--num_threads", "1"]
    done = run_python(["-m", "fastddpm", "sample", model, "--out", out, *words], most_file_bytes=most)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("fastddpm: error: "))
    assert line.startswith(f"fastddpm: error: {out} has no room (File too large); what was saved before is whole")
    assert line.endswith("free some, or put --out on a larger disk, and start again")
    assert not out.exists()
    assert len(list((tmp_path / ".x.npz.parts").glob("0*.npy"))) == 3


TAKES_LITTLE_MORE = """
import resource, sys
import psutil
from fastddpm.pipelines.base import UNetPipeline
original = UNetPipeline.denoise
def denoise(*arguments, **more):
    limit = psutil.Process().memory_info().vms + 48 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return original(*arguments, **more)
UNetPipeline.denoise = denoise
from fastddpm.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is not enforced elsewhere")
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sample", "vary"])
def test_a_micro_batch_that_does_not_fit_ends_with_one_line(model, tmp_path, verb):
    """A real one: once drawing begins the process may take 48 MiB more, and a layer takes some 64."""
    out, count = tmp_path / "out.npz", 32_768
    words = ["--num_images", count, "--num_threads", 1]
    if verb == "vary":
        Image.new("L", (8, 8)).save(tmp_path / "x.png")
        words = [tmp_path / "x.png", "--num_images", count, "--start_timesteps", 1]
    words = [verb, model, *words, "--out", out, "--micro_batch_size", count]
    done = subprocess.run(
        [sys.executable, "-c", TAKES_LITTLE_MORE, *map(str, words)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (x for x in done.stderr.splitlines() if x.startswith("fastddpm: error: "))
    said = "out of memory while drawing, with micro_batch_size 32768; use --micro_batch_size 16384"
    assert line.startswith(f"fastddpm: error: {said}")
    assert line.endswith(f" and another --out: what is in {out} has micro-batches of 32768")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_processes", 2], "num_processes asks for 2 processes, got 1; see launch/README.md"),
        (["--scheduler", "ddim", "--num_inference_steps", 3], "ddim takes even steps over 20 timesteps, so it must"),
        (["--num_inference_steps", 21], "num_inference_steps is 21; it must be 1 to 20"),
        (["--num_images", 0], "num_images is 0; it must be at least 1"),
        (["--seed", -1], "seed is -1; it must be at least 0"),
        (["--class_label", 9], "knows 0 to 2, or 3 or 'none' for any class"),
    ],
)
def test_what_does_not_fit_is_refused(model, tmp_path, refused, words, message):
    assert message in refused(model, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_solver_class_and_guidance_are_used(model, tmp_path, draw):
    def images(name, *words):
        return np.load(draw(model, tmp_path / f"{name}.npz", *words))["images"]

    plain = images("plain")
    for name, words in {
        "ddim": ["--scheduler", "ddim"], "dpm": ["--scheduler", "dpmsolver++"], "class": ["--class_label", 1],
        "guided": ["--guidance_scale", 2.0], "seed": ["--seed", 1], "bf16": ["--precision", "bf16"],
    }.items():  # fmt: skip
        assert not np.array_equal(images(name, *words), plain), name
    assert np.array_equal(images("ddpm", "--scheduler", "ddpm"), plain)


@pytest.mark.slow
def test_compiled_network_draws_the_same_within_a_level(model, tmp_path, draw):
    plain, compiled = (
        np.load(draw(model, tmp_path / f"{len(words)}.npz", *words))["images"].astype(int)
        for words in ([], ["--compile"])
    )
    assert np.abs(plain - compiled).max() <= 1


def test_run_that_goes_on_can_be_drawn_from(model, tmp_path, image_folder, draw):
    train_here(tmp_path / "run", image_folder, **{"train.num_images_seen": "16"})
    finished = np.load(draw(tmp_path / "run", tmp_path / "a.npz"))["images"]
    os.rename(tmp_path / "run" / "model_index.json", tmp_path / "aside.json")
    assert np.array_equal(np.load(draw(tmp_path / "run", tmp_path / "b.npz"))["images"], finished)
