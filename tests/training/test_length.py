"""The length of a run in words."""

from fastddpm.training.length import in_minutes, length_in_words


def test_length_of_a_run_is_told_in_times_that_each_picture_is_seen():
    assert (
        length_in_words(4_488, 160_000, False) == "length: 160,000 images; an epoch is 4,488, so each is seen 36 times"
    )


def test_few_pictures_seen_often_get_a_word_of_advice():
    said = length_in_words(100, 500_000, is_flipped=False)
    assert (
        "an epoch is 100, so each is seen 5,000 times. A model of few pictures, seen often, comes to repeat them"
        in said
    )
    assert "--train.horizontal_flip true" in said
    assert "--train.num_images_seen" in said
    assert "horizontal_flip" not in length_in_words(100, 500_000, is_flipped=True)
    assert "repeat" not in length_in_words(100, 10_000, is_flipped=False)


def test_time_is_told_as_roughly_as_it_is_known():
    assert [in_minutes(seconds) for seconds in (1, 59, 660, 10_000)] == [
        "1 second", "59 seconds", "11 minutes", "2.8 hours"
    ]  # fmt: skip
