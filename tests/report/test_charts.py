import re
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from fastddpm import report
from fastddpm.report.charts import charts_of, to_svg

ROWS = [
    {"step": 1, "images_seen": 10, "loss": 0.5, "loss_by_quartile": [0.4, None, 0.5, 0.6], "images_per_second": 3.0},
    {"step": 2, "images_seen": 20, "loss": None, "loss_by_quartile": [0.2, 0.3, 0.4, 0.5], "images_per_second": 4.0},
    {"step": 2, "images_seen": 20, "held_out_loss": 0.35, "train_set_loss": 0.3},
]


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_loss_plot_is_drawn_from_metrics(tmp_path):
    report.save_loss_plot(ROWS, tmp_path / "loss.png")
    picture = read(tmp_path / "loss.png")
    assert picture.shape[1] > picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]


def test_a_chart_is_there_when_the_rows_have_its_values():
    assert [chart.title for chart in charts_of(ROWS)] == ["loss", "loss by timestep quartile", "images per second"]
    more = [*ROWS, {"images_seen": 20, "kid": 0.01, "peak_share": 0.3, "data_wait_share": 0.1}]
    assert len(charts_of(more)) == 6
    assert charts_of([]) == []


def test_curves_hold_the_values_and_gaps_where_there_are_none():
    losses, quartiles = charts_of(ROWS)[:2]
    assert [line.name.split(",")[0].split(" (")[0] for line in losses.curves] == [
        "while training", "training images", "held-out images",
    ]  # fmt: skip
    assert losses.curves[0].values[0] == 0.5
    assert np.isnan(losses.curves[0].values[1])
    assert list(losses.curves[2].values) == [0.35]
    assert np.isnan(quartiles.curves[1].values[0])
    assert quartiles.curves[3].values == [0.6, 0.5]


def test_svg_takes_the_colour_of_the_page_and_shares_no_names_with_another():
    first, second = (to_svg(chart) for chart in charts_of(ROWS)[:2])
    for drawing in (first, second):
        ET.fromstring(drawing)
        assert "currentColor" in drawing
        assert "#010203" not in drawing
        assert "#000000" not in drawing
    clips = [set(re.findall(r'<clipPath id="([^"]+)"', drawing)) for drawing in (first, second)]
    assert clips[0]
    assert not clips[0] & clips[1]


def test_each_of_several_averages_has_a_curve():
    losses = {f"ema-{number}": 0.1 * number for number in range(1, 9)}
    rows = [*ROWS, {"images_seen": 20, "held_out_loss_of_others": losses}]
    (chart,) = (chart for chart in charts_of(rows) if "average" in chart.title)
    assert [line.name for line in chart.curves] == ["the first average, of unet/", *losses]
    assert [line.values for line in chart.curves] == [[0.35], *([value] for value in losses.values())]
    drawing = to_svg(chart)
    assert all(f">{name}<" in drawing for name in losses), "also with more curves than colours"


def test_logarithmic_axes_have_plain_numbers():
    drawing = to_svg(charts_of(ROWS)[0])
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", drawing)
    assert {"0.3", "0.4"} <= set(labels)
    assert "\u00d7" not in drawing, "no 3 \u00d7 10^-1"


def test_a_chart_is_small_and_its_words_are_text():
    rows = [
        {"images_seen": 64 * i, "loss": 0.5 + 0.4 / (i + 1), "loss_by_quartile": [0.1 / (i + q) for q in (1, 2, 3, 4)]}
        for i in range(1000)
    ]
    for drawing in map(to_svg, charts_of(rows)):
        assert len(drawing) < 60_000
        assert ">images seen</text>" in drawing
