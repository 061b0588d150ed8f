import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastddpm import report
from tests.report.test_charts import ROWS

HOSTILE = "<script>alert(1)</script>&\"'"


def about(**changes):
    facts = {
        "title": HOSTILE, "state": "finished", "facts": [("images seen", "1,000"), (HOSTILE, HOSTILE)],
        "commands": [("with fastddpm", f"load({HOSTILE})")], "config": f"data:\n  source: {HOSTILE}\n",
    }  # fmt: skip
    return report.About(**{**facts, **changes})


@pytest.fixture
def folder(tmp_path):
    for name in ("samples.png", "denoising.png", "progress.png", "nearest.png", "data.png"):
        Image.fromarray(np.full((4, 4, 3), 99, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "data.json").write_text(json.dumps({"images": 1234, HOSTILE: [HOSTILE] * 30}))
    return tmp_path


class Links(HTMLParser):
    """Whatever a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data", "srcset")]


def links(page):
    parser = Links()
    parser.feed(page)
    return parser


def test_page_is_one_file_that_fetches_and_runs_nothing(folder):
    report.save_page(folder, about(), ROWS)
    page = (folder / "report.html").read_text()
    found = links(page)
    assert all(source.startswith(("data:image/", "#")) for source in found.sources)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert not list(folder.glob(".report*")), "written in one move"


def test_page_carries_the_pictures_that_are_there(folder):
    report.save_page(folder, about(), ROWS)
    found = [s for s in links((folder / "report.html").read_text()).sources if s.startswith("data:")]
    assert len(found) == 4, "nearest.png belongs to a verdict"
    picture = Image.open(io.BytesIO(base64.b64decode(found[0].partition(",")[2])))
    assert picture.getpixel((0, 0)) == (99, 99, 99)


def test_page_escapes_what_comes_from_people(folder):
    report.save_page(folder, about(verdict=("bad", HOSTILE)), ROWS)
    page = (folder / "report.html").read_text()
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
    assert "1,234" in page
    assert "and 10 more" in page


def test_verdict_stands_above_the_pairs(folder):
    report.save_page(folder, about(verdict=("good", "No sign of copies")), ROWS)
    page = (folder / "report.html").read_text()
    assert page.index('class="verdict good">No sign of copies') < page.index("the training image that is nearest")


def test_unfinished_run_shows_its_newest_preview(folder, tmp_path):
    Image.fromarray(np.full((4, 4, 3), 11, dtype=np.uint8)).save(tmp_path / "preview.png")
    (folder / "samples.png").unlink()
    report.save_page(folder, about(preview=tmp_path / "preview.png"), [])
    first = links((folder / "report.html").read_text()).sources[0]
    assert Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))).getpixel((0, 0)) == (11, 11, 11)


def test_broken_data_report_is_said_and_the_page_is_written(folder):
    (folder / "data.json").write_text("{")
    report.save_page(folder, about(), ROWS)
    assert "data.json cannot be read" in (folder / "report.html").read_text()


def test_page_shows_the_samples_of_each_average(folder):
    Image.fromarray(np.full((4, 4, 3), 33, dtype=np.uint8)).save(folder / "samples-ema-0.999.png")
    report.save_page(folder, about(), ROWS)
    page = (folder / "report.html").read_text()
    assert page.index("image i comes from seed + i") < page.index("drawn from the average ema-0.999.")
    second = [s for s in links(page).sources if s.startswith("data:")][1]
    assert Image.open(io.BytesIO(base64.b64decode(second.partition(",")[2]))).getpixel((0, 0)) == (33, 33, 33)
    report.save_page(folder, about(preview=folder / "samples.png"), ROWS)
    assert "ema-0.999" not in (folder / "report.html").read_text(), "older than the preview"
