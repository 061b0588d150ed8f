"""The page in a real browser: Chromium, without a window."""

import base64
import io
import shlex
import shutil
import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from fastddpm import cli
from fastddpm.verbs.demo.answers import Dials, blend, read_picture, vary
from tests.verbs.demo.browsing import served, why_no_browser
from tests.verbs.demo.test_answers import given_of
from tests.verbs.demo.test_server import other_addresses

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser())),
]

MILLISECONDS = 180_000
"""that a browser waits for; answers take a fraction of one of its seconds"""


@pytest.fixture(scope="module")
def demo(run_folder, normal, tmp_path_factory):
    with served(tmp_path_factory.mktemp("served"), str(run_folder), "--normal", str(normal)) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, demo):
    """The page, open; nothing of it may ask another machine, and no script may fail."""
    found = browser.new_page(viewport={"width": 1280, "height": 1000})
    found.set_default_timeout(MILLISECONDS)
    asked, failed = [], []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: failed.append(str(error)))
    found.goto(demo.url)
    found.wait_for_selector("#vary-picture")
    yield found
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(demo.url).netloc}
    assert not failed
    found.close()


def drop(page, where, path, mime="image/png"):
    """Drop a file on a place of the page, as from a file manager."""
    data = base64.b64encode(path.read_bytes()).decode()
    transfer = page.evaluate_handle(
        """([data, name, mime]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: mime}));
            return transfer;
        }""",
        [data, path.name, mime],
    )
    box = page.locator(f"{where} .upload-container")
    (box if box.locator("img").count() else box.locator("button")).first.dispatch_event(
        "drop", {"dataTransfer": transfer}
    )


def pictures_of(page, where, count):
    """(K, 1, 8, 8), uint8, as soon as there are K."""
    page.wait_for_function(f"document.querySelectorAll('{where} img').length == {count}", timeout=MILLISECONDS)
    sources = [image.get_attribute("src") for image in page.locator(f"{where} img").all()]
    return np.stack([np.asarray(Image.open(io.BytesIO(page.request.get(url).body())).convert("L")) for url in sources])[
        :, None
    ]


def clear(page, where):
    """Take the picture away."""
    page.locator(where).get_by_label("Remove").or_(page.locator(where).get_by_label("Clear")).first.click()


def settled(page, words):
    """Wait until the answer to a question is there, whose command has these words."""
    page.locator("#vary-words, #blend-words").filter(has_text=words).wait_for()


def dials(run, **options):
    """Of the page as it opens."""
    best = {"scheduler": run.best.scheduler, "num_inference_steps": run.best.num_inference_steps}
    return Dials(**{"start_timestep": 8, "count": 8, **best, **options})


def of_class(run, place):
    """What the page adds to the dials for a picture that it offers."""
    return {"class_label": int(run.examples.labels[place]), "guidance_scale": 1.5}


def turn(page, dial, value):
    """Type a number beside a dial."""
    number = page.locator(f"#{dial} input[type=number]")
    number.fill(str(value))
    number.press("Enter")


def test_it_loads_and_says_which_run(page):
    assert page.title() == "tiny: fastddpm"
    assert page.get_by_role("heading", name="tiny").is_visible()
    assert "8x8 grayscale · 3 classes · 20 timesteps" in page.content()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_opens_with_a_held_out_picture_and_its_variations_by_class_and_guidance(page, run):
    settled(page, run.examples.names[0])
    assert page.locator("#vary-picture img").count() == 1
    found = pictures_of(page, "#vary-images", 8)
    assert np.array_equal(found, vary(run, given_of(run, 0), dials(run, **of_class(run, 0))).images)


def test_the_command_line_runs_as_it_is_shown(page, run, tmp_path, monkeypatch):
    settled(page, run.examples.names[0])
    program, *words = shlex.split(page.locator("#vary-words code").inner_text())
    assert program == "fastddpm"
    monkeypatch.chdir(tmp_path)
    cli.main(words)
    assert [path.name for path in tmp_path.glob("*.png")] == ["variations.png"]
    cli.main([*words[:-1], "variations.npz"])
    assert np.array_equal(np.load("variations.npz")["images"][:, None], pictures_of(page, "#vary-images", 8))


def test_other_tabs_open_with_answers_too(page, run):
    settled(page, run.examples.names[0])
    page.get_by_role("tab", name="Blend").click()
    settled(page, f"{run.examples.names[0]}' --partners '{run.examples.names[1]}'")
    assert len(pictures_of(page, "#blend-images", 8)) == 8
    page.get_by_role("tab", name="Anomaly").click()
    page.locator("#anomaly-words").filter(has_text="score").wait_for()
    assert page.locator("#anomaly-given img").count() == 1


def test_a_dropped_picture_gets_its_variations(page, run, picture):
    drop(page, "#vary-picture", picture)
    settled(page, "picture.png --start_timesteps 8")
    found = pictures_of(page, "#vary-images", 8)
    given = read_picture(picture, run.fitting)
    assert np.array_equal(found, vary(run, given, dials(run)).images)
    assert np.array_equal(pictures_of(page, "#vary-given", 1)[0], given.pixels)


def test_the_dial_goes_from_the_same_picture_to_any(page, run, picture):
    given = read_picture(picture, run.fitting)
    drop(page, "#vary-picture", picture)
    settled(page, "picture.png --start_timesteps 8")
    turn(page, "vary-count", 3)
    settled(page, "--num_images 3")
    page.locator("#vary-dial input[type=range]").focus()
    page.keyboard.press("Home")
    settled(page, "--start_timesteps 0")
    assert all(np.array_equal(image, given.pixels) for image in pictures_of(page, "#vary-images", 3))
    page.locator("#vary-dial input[type=range]").focus()
    page.keyboard.press("End")
    settled(page, "--start_timesteps 20")
    far = pictures_of(page, "#vary-images", 3)
    assert np.array_equal(far, vary(run, given, dials(run, start_timestep=20, count=3)).images)
    turn(page, "vary-dial", 5)
    settled(page, "--start_timesteps 5")
    assert not np.array_equal(pictures_of(page, "#vary-images", 3), far)


def test_a_held_out_picture_can_be_clicked_on(page, run):
    page.locator("#vary-picture-examples button").nth(2).click()
    settled(page, run.examples.names[2])
    assert np.array_equal(pictures_of(page, "#vary-given", 1)[0], run.examples.images[2])


def test_a_drawing_gets_variations(page):
    page.get_by_role("tab", name="Draw one").click()
    box = page.locator("#sketch canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 10, steps=4)
    page.mouse.up()
    settled(page, "drawing.png --start_timesteps 8")
    given = pictures_of(page, "#vary-given", 1)[0, 0]
    assert given[:, 3:5].mean() > 100
    assert given[:, [0, 1, 6, 7]].max() == 0
    assert len(pictures_of(page, "#vary-images", 8)) == 8


def test_two_pictures_blend(page, run, picture):
    page.get_by_role("tab", name="Blend").click()
    settled(page, "--box 0 4 8 4")
    drop(page, "#blend-one", picture)
    page.locator("#blend-other-examples button").first.click()
    settled(page, f"picture.png --partners '{run.examples.names[0]}'")
    turn(page, "blend-top", 2)
    turn(page, "blend-height", 3)
    turn(page, "blend-count", 2)
    settled(page, "--box 2 4 3 4 --start_timesteps 8 --num_images 2")
    given = read_picture(picture, run.fitting)
    wanted = blend(run, given, given_of(run, 0), (2, 4, 3, 4), dials(run, count=2))
    assert np.array_equal(pictures_of(page, "#blend-images", 2), wanted.images)
    assert np.array_equal(pictures_of(page, "#blend-given", 1)[0], wanted.given)


def test_a_box_that_leaves_the_picture_is_refused(page, run):
    page.get_by_role("tab", name="Blend").click()
    settled(page, "--box 0 4 8 4")
    turn(page, "blend-left", 7)
    page.locator("#blend-words").filter(has_text="leave the image of 8x8").wait_for()
    assert page.locator("#blend-images img").count() == 0


def test_a_picture_that_is_not_normal_is_shown_where(page, tmp_path):
    pixels = np.random.default_rng(8).integers(0, 60, (8, 8), dtype=np.uint8)
    page.get_by_role("tab", name="Anomaly").click()
    page.locator("#anomaly-words").filter(has_text="score").wait_for()
    clear(page, "#anomaly-picture")
    for name, corner, verdict in (("dark", 30, "Normal: score"), ("bright", 255, "Not normal: score")):
        pixels[:4, :4] = corner
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        drop(page, "#anomaly-picture", tmp_path / f"{name}.png")
        page.locator("#anomaly-words").filter(has_text=verdict).wait_for()
        clear(page, "#anomaly-picture")
    assert "30 images of " in page.content()


def test_bad_pictures_are_refused_and_good_ones_still_answered(page, run, picture, bad_pictures):
    settled(page, "--start_timesteps 8")
    clear(page, "#vary-picture")
    for name in ("text.png", "cut.png", "bomb.png", "moves.gif"):
        path, reason = bad_pictures[name]
        drop(page, "#vary-picture", path, "image/gif" if name.endswith(".gif") else "image/png")
        settled(page, f"Refused: {name} {reason}")
        assert page.locator("#vary-images img").count() == 0
        clear(page, "#vary-picture")
    drop(page, "#vary-picture", picture)
    settled(page, "picture.png --start_timesteps 8")
    assert len(pictures_of(page, "#vary-images", 8)) == 8


def test_a_file_too_large_is_refused(page, picture, tmp_path):
    (tmp_path / "huge.png").write_bytes(picture.read_bytes() + bytes(33 * 2**20))
    settled(page, "--start_timesteps 8")
    clear(page, "#vary-picture")
    page.locator("#vary-picture input[type=file]").first.set_input_files(tmp_path / "huge.png")
    page.get_by_text("aximum allowed size").or_(page.get_by_text("make it smaller first")).first.wait_for()
    page.locator("#vary-picture-examples button").first.click()
    settled(page, "--start_timesteps 8")


def test_other_sites_and_other_machines_are_kept_out(demo):
    assert urllib.request.urlopen(demo.url).status == 200
    for path, headers in (("/", {"Host": "example.com"}), ("/docs", {}), ("/openapi.json", {}), ("/monitoring", {})):
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(urllib.request.Request(demo.url + path, headers=headers))
        assert answer.value.code in (400, 403, 404)
    for address in other_addresses():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, demo.port), timeout=5)


def test_the_server_asked_no_other_machine(demo, page):
    assert demo.others_asked == ""


def test_an_interrupt_ends_it_as_other_verbs(demo):
    assert demo.interrupt() == 130
    assert "Traceback" not in demo.output.read_text()
    assert demo.output.read_text().endswith("fastddpm: stopped; the same command goes on from what was kept\n")
