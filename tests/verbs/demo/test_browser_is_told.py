import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_a_machine_without_a_browser_does_not_pass_unseen(tmp_path):
    """The last lines of a run of tests say how many ran in a browser, and why none did."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", "-q",
         "tests/verbs/demo/test_page.py"],
        capture_output=True, text=True, check=False, timeout=240, cwd=PROJECT,
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "browser: 0 ran: there is no chromium" in done.stdout.splitlines()
