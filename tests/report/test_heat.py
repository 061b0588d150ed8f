import numpy as np

from fastddpm.report.figures import MOST, heat, overlay


def test_heat_grows_with_the_map_and_ends():
    maps = np.linspace(0, 3 * MOST, 30, dtype=np.float32).reshape(1, 1, 30)
    drawn = heat(maps, 1.0)
    assert (drawn.shape, drawn.dtype) == ((1, 3, 1, 30), np.uint8)
    light = drawn.astype(int).sum(1)[0, 0]
    assert bool((np.diff(light) >= 0).all())
    assert light[0] < 20
    assert bool((drawn[..., 10:] == drawn[..., -1:]).all()), "hotter than the most is as hot"
    assert np.array_equal(heat(maps * 7, 7.0), drawn), "only the ratio to the threshold counts"


def test_an_overlay_leaves_what_is_below_the_threshold_alone():
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), dtype=np.uint8)
    map_ = np.zeros((1, 8, 8))
    map_[0, 2:7, 1:6] = 2
    drawn = overlay(image, map_, 1.0)
    inside = map_[0] > 1
    assert np.array_equal(drawn[0][:, ~inside], np.broadcast_to(image[0], (3, 8, 8))[:, ~inside])
    outline = inside.copy()
    outline[3:6, 2:5] = False
    assert bool((drawn[0][:, outline] == np.array([235, 40, 40])[:, None]).all())
    middle = drawn[0][:, inside & ~outline].astype(float)
    assert np.allclose(middle, 0.55 * image[0][:, inside & ~outline] + 0.45 * np.array([[235.0], [40], [40]]), atol=0.5)


def test_colour_images_and_marks_at_the_edge():
    image = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    maps = np.zeros((2, 4, 4))
    maps[1, 0, 0] = 9
    drawn = overlay(image, maps, 1.0)
    assert not drawn[0].any()
    assert drawn[1, :, 0, 0].tolist() == [235, 40, 40]
    assert not drawn[1, :, 1:].any()
