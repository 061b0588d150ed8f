"""The slider of the page in a real browser: what another threshold would do is what detection.json says it would."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fastddpm import AnomalyPipeline, FusedDDPMScheduler, cli
from tests.conftest import tiny_unet
from tests.verbs.demo.browsing import why_no_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
]


def test_the_slider_says_what_another_threshold_would_do(tmp_path, monkeypatch):
    from playwright.sync_api import sync_playwright

    monkeypatch.chdir(tmp_path)
    AnomalyPipeline(tiny_unet(), FusedDDPMScheduler()).save_pretrained("model")
    draw = np.random.default_rng(0)
    np.savez("normal.npz", images=draw.integers(0, 60, (30, 8, 8), dtype=np.uint8))
    for kind in ("good", "spot"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        for i in range(6):
            image = draw.integers(0, 60, (8, 8), dtype=np.uint8)
            image[:3, :3] += 30 * i if kind == "spot" else 0
            Image.fromarray(image).save(tmp_path / "test" / kind / f"{i}.png")
    cli.main(["detect", "model", "test", "--normal", "normal.npz", "--out", "out", "--num_threads", "1"])
    record = json.loads((tmp_path / "out" / "detection.json").read_text())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page, failed = browser.new_page(), []
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto((tmp_path / "out" / "report.html").as_uri())
        low, high = (float(page.get_attribute("#threshold", name)) for name in ("min", "max"))
        said = [(record["thresholds"]["image"], page.inner_text("#would"))]
        for limit in (low, (low + high) / 2, high):
            page.locator("#threshold").fill(f"{limit:.2f}")
            said.append((float(f"{limit:.2f}"), page.inner_text("#would")))
        browser.close()
    assert not failed
    assert "at most 3.2 % of fresh normal images above it" in said[0][1], "one of 31"
    for limit, words in said:
        above = {kind: sum(row["score"] > limit for row in record["images"] if row["kind"] == kind) for kind in
                 ("good", "spot")}  # fmt: skip
        assert f"{sum(above.values())} of 12 images flagged" in words
        assert f"{6 - above['spot']} of 6 missed; {above['good']} of 6 false alarms" in words
    assert "0 of 12 images flagged" in said[-1][1]
