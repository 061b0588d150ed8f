"""Residuals of normal images, place by place."""

import torch

from fastddpm.measures.neighbours import FOLDS, Moments, folds, smoothing_of


def test_what_varies_among_normal_images_counts_less_there():
    """The same residual, at a place where normal images differ much and where they hardly do."""
    normal = torch.randn(300, 1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    normal[..., :6] *= 10
    moments = Moments.of(normal)
    left, right = torch.zeros(1, 1, 1, 12, 12), torch.zeros(1, 1, 1, 12, 12)
    left[..., 2], right[..., 9] = 10, 10
    assert float(moments.maps(right).amax()) > float(moments.maps(left).amax())


def test_own_maps_are_by_moments_of_the_others():
    normal = torch.randn(10, 1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    _, maps = Moments.fit(normal)
    for place in range(10):
        others = [other for other in range(10) if other % FOLDS != place % FOLDS]
        assert torch.equal(maps[place], Moments.of(normal[others]).maps(normal[place : place + 1])[0])


def test_each_image_is_in_one_part():
    for count in (1, 7, 23):
        assert torch.stack(list(folds(count))).sum(0).tolist() == [1] * count


def test_images_that_belong_together_are_in_one_part():
    groups = torch.tensor([0, 0, 2, 3, 3, 3, 6, 7, 8, 0])
    parts = torch.stack(list(folds(10, groups)))
    assert parts.sum(0).tolist() == [1] * 10
    assert all(len(set(parts.int().argmax(0)[groups == group].tolist())) == 1 for group in groups.unique())
    alone, alike = torch.stack(list(folds(10))), torch.stack(list(folds(10, torch.zeros(10, dtype=torch.int64))))
    assert torch.equal(alone, alike), "of one group there would be none to judge by"


def test_smoothing_grows_with_the_image():
    assert [smoothing_of(side, side) for side in (8, 28, 64, 128, 256)] == [3, 3, 7, 15, 29]
