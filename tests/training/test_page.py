"""The page of a run: one file, what it shows, and that nothing of it is taken for HTML."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastddpm.training.page import write_page
from tests.report.test_charts import ROWS
from tests.training.runs import some_images, train_here

HOSTILE = "<script>alert(1)</script>&\"'"


def write(folder, rows=ROWS, preview=None, **changes):
    """The page and what it fetches."""
    facts = [("images seen", "1,000"), (HOSTILE, HOSTILE)]
    numbers = [{"value": "7 of 9", "title": f"samples {HOSTILE}", "sentence": HOSTILE}]
    about = {"state": "finished", "numbers": numbers, "facts": facts, "verdict": None, **changes}
    commands, config = [("with fastddpm", f"load({HOSTILE})")], f"data:\n  source: {HOSTILE}\n"
    write_page(folder, rows, about, commands=commands, config=config, preview=preview)
    return (folder / "report.html").read_text()


@pytest.fixture
def folder(tmp_path):
    """Of a run, with a name that is half of a tag: a name holds no slash."""
    tmp_path = tmp_path / "<script>alert(1)&"
    tmp_path.mkdir()
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
    page = write(folder)
    found = links(page)
    assert all(source.startswith(("data:image/", "#")) for source in found.sources)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert not list(folder.glob(".report*")), "written in one move"


def test_page_carries_the_pictures_that_are_there(folder):
    found = [s for s in links(write(folder)).sources if s.startswith("data:")]
    assert len(found) == 4, "nearest.png belongs to a verdict"
    picture = Image.open(io.BytesIO(base64.b64decode(found[0].partition(",")[2])))
    assert picture.getpixel((0, 0)) == (99, 99, 99)


def test_page_escapes_what_comes_from_people(folder):
    page = write(folder, verdict=("bad", HOSTILE))
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 7
    assert page.count("&lt;script&gt;alert(1)&amp;</") == 2, "the run's name"
    assert "1,234" in page
    assert "and 10 more" in page


def test_verdict_stands_above_the_pairs(folder):
    page = write(folder, verdict=("good", "No sign of copies"))
    assert page.index('class="verdict good">No sign of copies') < page.index("the training image that is nearest")


class Order(HTMLParser):
    """What stands on a page before anything is unfolded, in order: pictures and text."""

    def __init__(self):
        super().__init__()
        self.found, self._folded = [], 0

    def handle_starttag(self, tag, attributes):
        self._folded += tag == "details"
        if tag == "img" and not self._folded:
            self.found.append("picture")

    def handle_endtag(self, tag):
        self._folded -= tag == "details"

    def handle_data(self, data):
        if data.strip() and not self._folded:
            self.found.append(data.strip())


def test_page_opens_with_a_picture_then_the_numbers_and_folds_the_rest(folder):
    order = Order()
    order.feed(write(folder).partition("</header>")[2])
    first = [text for text in order.found if "New images" not in text][:4]
    assert first == ["picture", "7 of 9", f"samples {HOSTILE}", HOSTILE]
    assert not {"images seen", "loss", "1,000", "data:"} & set(order.found), "cards, curves and settings are folded"
    assert "1,000" in (folder / "report.html").read_text()


def test_unfinished_run_shows_its_newest_preview(folder, tmp_path):
    Image.fromarray(np.full((4, 4, 3), 11, dtype=np.uint8)).save(tmp_path / "preview.png")
    (folder / "samples.png").unlink()
    first = links(write(folder, [], preview=tmp_path / "preview.png")).sources[0]
    assert Image.open(io.BytesIO(base64.b64decode(first.partition(",")[2]))).getpixel((0, 0)) == (11, 11, 11)


def test_broken_data_report_is_said_and_the_page_is_written(folder):
    (folder / "data.json").write_text("{")
    assert "data.json cannot be read" in write(folder)


def test_page_shows_the_samples_of_each_average(folder):
    Image.fromarray(np.full((4, 4, 3), 33, dtype=np.uint8)).save(folder / "samples-ema-0.999.png")
    page = write(folder)
    assert page.index("image i comes from seed + i") < page.index("drawn from the average ema-0.999.")
    second = [s for s in links(page).sources if s.startswith("data:")][1]
    assert Image.open(io.BytesIO(base64.b64decode(second.partition(",")[2]))).getpixel((0, 0)) == (33, 33, 33)
    assert "ema-0.999" not in write(folder, preview=folder / "samples.png"), "older than the preview"


def test_names_of_a_run_and_of_its_images_are_text(tmp_path):
    """Each of them stands on the page, and none of them makes anything bold."""
    source = tmp_path / "<b>pictures<b>"
    for label in ("<b>dark<b>", "<b>light<b>"):
        some_images(source / label)
    (source / "<b>other<b>.txt").write_text("no picture")
    data = {"data.on_bad_file": "skip", "model.class_conditional": "true"}
    page = (train_here(tmp_path / "<b>run<b>", source, **data) / "report.html").read_text()
    for name in ("run", "pictures", "dark", "light"):
        assert f"&lt;b&gt;{name}&lt;b&gt;" in page, name
    assert "<b>" not in page
