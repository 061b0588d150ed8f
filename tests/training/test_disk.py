"""F8, F36: a disk that is full, or may no longer be written to. Each run has mounts of its own, gone with it."""

import shlex
import shutil
import subprocess
import sys

import pytest

from tests.training.runs import free_port, once_in_step, start, words_of
from tests.training.test_resume import assert_same

FILL = "subprocess.run('cat /dev/zero > {disk}/filler', shell=True)"
LOCK = "subprocess.run(['mount', '-o', 'remount,ro,bind', '{disk}/run/checkpoints'], check=True)"


@pytest.fixture(scope="module", autouse=True)
def mounts():
    """Skip where a user may not mount."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("may not make mounts here (root is needed)")


def on_a_disk(disk, mount, words, *, processes=1, repair=None):
    """Train on a disk of its own, and once more after it is repaired.

    Returns: both runs' exit codes and the first one's errors; what the disk held after each is in `<disk>-first` and
    `<disk>-second`.
    """
    disk.mkdir()
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port",
                     str(free_port())]  # fmt: skip
    train = shlex.join([*launcher, *words])
    lines = [mount, f"{train} 2> {disk}.err", f"cp -r {disk} {disk}-first; echo code $rc"]
    if repair is not None:
        lines += [repair, train, f"cp -r {disk} {disk}-second; echo code $rc"]
    script = "\n".join(line if line.startswith("cp") else f"{line}\nrc=$?" for line in lines)
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", script],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("code ")]
    assert len(codes) == (1 if repair is None else 2), done.stderr
    return codes, disk.with_name(f"{disk.name}.err").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("mount", "what", "repair", "says"),
    [
        ("mount -t tmpfs -o size=2m none {disk}", FILL, "rm {disk}/filler", "no room|could not be written"),
        (
            "mkdir -p {disk}/run/checkpoints && mount --bind {disk}/run/checkpoints {disk}/run/checkpoints",
            LOCK,
            "mount -o remount,rw,bind {disk}/run/checkpoints",
            "may not be read or written",
        ),
    ],
    ids=["f8 full", "f36 read-only"],
)
def test_f8_f36_the_failed_save_is_said_and_the_one_before_is_whole(
    tmp_path, image_folder, mount, what, repair, says, processes
):
    straight, disk = tmp_path / "straight", tmp_path / "disk"
    settings = {"train.num_threads": "1", "train.log_every": "20", "train.micro_batch_size": "4"}
    done = start(straight, image_folder, processes=processes, **settings)
    assert done.returncode == 0, done.stderr
    before = once_in_step(12, what.format(disk=disk), flag=tmp_path / "flag")
    words = words_of(disk / "run", image_folder, None, before, settings)
    codes, errors = on_a_disk(
        disk, mount.format(disk=disk), words, processes=processes, repair=repair.format(disk=disk)
    )
    assert codes == [2 if processes == 1 else 1, 0], errors
    said = [line for line in errors.splitlines() if line.startswith("fastddpm: error: ")]
    assert any(word in line for line in said for word in says.split("|")), errors
    if processes == 1:
        assert len(said) == 1
        assert "Traceback" not in errors
    left = disk.with_name("disk-first") / "run" / "checkpoints"
    assert sorted(path.name for path in left.iterdir()) == ["latest", "step-00000010"]
    assert_same(disk.with_name("disk-second") / "run", straight)


@pytest.mark.slow
def test_f8_a_disk_without_room_for_the_checkpoints_is_refused_at_the_start(tmp_path, image_folder):
    disk = tmp_path / "disk"
    words = words_of(disk / "run", image_folder, None, "", {})
    codes, errors = on_a_disk(disk, f"mount -t tmpfs -o size=64k none {disk}", words)
    assert codes == [2]
    (line,) = [line for line in errors.splitlines() if line.startswith("fastddpm: error: ")]
    assert "has 0.1 MB free; 2 checkpoints of 0.0 MB and one that is being written want 0.1 MB" in line
    assert "lower train.keep_checkpoints, or put --out on a larger disk" in line
    assert not list((disk.with_name("disk-first") / "run").glob("checkpoints/step-*"))
