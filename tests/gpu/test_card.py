"""The card that is not there keeps true books: what it counts, and what it refuses."""

import pytest
import torch

from tests.gpu.card import CARD, inserted, needs_card

pytestmark = needs_card


@pytest.fixture
def card():
    with inserted() as card:
        yield card


def test_tensors_of_two_devices_do_not_mix(card):
    here, there = torch.ones(3), torch.ones(3, device=CARD)
    with pytest.raises(RuntimeError, match=r"tensors of cuda:0 and of cpu, \[\(3,\)\], mixed"):
        here + there
    assert (there * torch.tensor(2.0)).cpu().tolist() == [2, 2, 2], "torch takes numbers of the host"


def test_what_makes_the_host_wait_is_counted(card):
    x = torch.ones(3).to(CARD, non_blocking=True)
    assert not card.waits
    for wait in (lambda: x.sum().item(), x.tolist, x.nonzero, lambda: x[x > 0], lambda: torch.ones(3).to(CARD),
                 lambda: torch.tensor([1.0], device=CARD), lambda: bool((x > 0).all())):  # fmt: skip
        card.forget()
        wait()
        assert len(card.waits) == 1


def test_launches_are_operations_that_compute(card):
    x = torch.ones(2, 3, 4, 4, device=CARD, requires_grad=True)
    card.forget()
    with torch.autocast("cuda", torch.bfloat16):
        y = torch.conv2d(x.view(2, 3, 4, 4), torch.ones(5, 3, 1, 1, device=CARD))
    assert card.launches == {"ones": 1, "_to_copy": 2, "convolution": 1}
    assert [kind for kind, _ in card.casts] == ["float32 to bfloat16"] * 2
    y.float().sum().backward()
    assert x.grad.device == CARD
    assert x.grad.cpu().tolist() == torch.full((2, 3, 4, 4), 5.0).tolist()
