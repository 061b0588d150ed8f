import pytest
import torch

from fastddpm.kernels.philox import (
    normals_reference,
    philox4x32,
    philox4x32_reference,
    philox_normal,
    philox_normal_reference,
    philox_words,
    philox_words_reference,
)


@pytest.mark.parametrize(
    ("word", "key", "expected"),
    [  # known answers of the Random123 distribution, philox4x32 with ten rounds
        (0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_philox_known_answers(word, key, expected):
    counter = torch.full((1,), word, dtype=torch.int64)
    words = philox4x32_reference((counter,) * 4, key)
    assert " ".join(f"{int(w):08x}" for w in words) == expected


def test_philox_known_answer_with_distinct_counters():
    counters = tuple(torch.tensor([w]) for w in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344))
    words = philox4x32_reference(counters, 0x299F31D0_A4093822)
    assert [f"{int(w):08x}" for w in words] == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


GOLDEN = [1215090006, 1608979538, 2575644071, 1345782543, 3635395773, 3249741194]


def test_layout_is_frozen():
    """A change here changes every picture and every run: raise LAYOUT_VERSION with it."""
    words = philox_words_reference(torch.tensor([5, 2**40 + 1]), 6, seed=7, stream=3, draw=9)
    block = [
        philox4x32_reference(
            tuple(torch.tensor([c]) for c in (b | 3 << 28, (2**40 + 1) & 0xFFFFFFFF, (2**40 + 1) >> 32, 9)), 7
        )
        for b in (0, 1)
    ]
    assert words[1].tolist() == [int(w) for w in (*block[0], *block[1])][:6]
    assert words[0].tolist() == GOLDEN


def test_words_of_different_streams_draws_seeds_and_positions_differ():
    def words(**changed):
        keys = {"seed": 1, "stream": 2, "draw": 3, "position": 4, **changed}
        return tuple(
            philox_words_reference(
                torch.tensor([keys["position"]]), 8, seed=keys["seed"], stream=keys["stream"], draw=keys["draw"]
            )[0].tolist()
        )

    variants = {words(), words(seed=2), words(stream=3), words(draw=4), words(position=5), words(seed=1 + 2**32)}
    assert len(variants) == 6


def test_draw_may_differ_by_position():
    positions = torch.tensor([4, 4])
    both = philox_words_reference(positions, 4, seed=1, stream=2, draw=torch.tensor([3, 8]))
    for i, draw in enumerate((3, 8)):
        assert torch.equal(both[i], philox_words_reference(positions[:1], 4, seed=1, stream=2, draw=draw)[0])


@pytest.mark.parametrize("num_elements", [1, 2, 3, 4, 5, 49, 784, 12288])
def test_normals_of_a_position_do_not_depend_on_the_batch(num_elements):
    positions = torch.arange(33) * 7919
    batch = philox_normal(positions, num_elements, seed=1, stream=0, draw=0)
    assert batch.shape == (33, num_elements)
    assert batch.dtype == torch.float32
    for i in (0, 1, 17, 32):
        assert torch.equal(philox_normal(positions[i : i + 1], num_elements, seed=1, stream=0, draw=0)[0], batch[i])


def test_normals_have_the_moments_of_a_normal():
    normals = philox_normal(torch.arange(1000), 784, seed=0, stream=0, draw=0).double().flatten()
    n = normals.numel()
    assert abs(normals.mean()) < 5 / n**0.5
    assert abs(normals.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((normals**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((normals**4).mean() - 3) < 5 * (96 / n) ** 0.5
    pairs = normals.reshape(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 5 / len(pairs) ** 0.5


def test_normals_are_finite_at_the_extreme_words():
    words = torch.tensor([[0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0xFFFFFFFF]])
    normals = normals_reference(words)
    assert torch.isfinite(normals).all()
    assert normals.abs().max() < 6.8


def test_too_many_elements_are_refused():
    with pytest.raises(ValueError, match="use smaller images"):
        philox_words_reference(torch.tensor([0]), 2**30 + 1, seed=0, stream=0, draw=0)


@pytest.mark.parametrize("num", [1, 2, 3, 5, 49, 784, 40_000])
@pytest.mark.parametrize("seed", [0, 7, 2**63 + 12345678901])
def test_the_cpus_form_is_the_reference_bit_for_bit(num, seed):
    """40,000 numbers an image: fewer than one image at a time stays in the cache."""
    positions, draws = torch.tensor([0, 5, 2**40 + 1]), torch.tensor([0, 9, 2**32 - 1])
    for draw in (0, 7, draws):
        key = {"seed": seed, "stream": 11, "draw": draw}
        assert torch.equal(philox_words(positions, num, **key), philox_words_reference(positions, num, **key))
        assert torch.equal(philox_normal(positions, num, **key), philox_normal_reference(positions, num, **key))


@pytest.mark.parametrize("key", [0, 0x299F31D0_A4093822, 2**64 - 1])
def test_rounds_on_a_cpu_are_the_reference_bit_for_bit(key):
    counters = torch.randint(0, 2**32, (4, 17), generator=torch.Generator().manual_seed(0)).unbind()
    for got, want in zip(philox4x32(counters, key), philox4x32_reference(counters, key), strict=True):
        assert torch.equal(got, want)


def test_keys_are_64_bits_with_or_without_a_sign():
    positions = torch.arange(3)
    first, second = (philox_words(positions, 4, seed=s, stream=0, draw=0) for s in (2**64 - 5, -5))
    assert torch.equal(first, second)
