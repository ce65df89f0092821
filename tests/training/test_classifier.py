"""What a training step counts as right, and when it mixes."""

from __future__ import annotations

import pytest
import torch

from videogn.training.classifier import answered_share
from videogn.transform.mixing import Mixing

LOGITS = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 4.0], [0.0, 2.0, 1.0], [5.0, 1.0, 0.0]])  # answers 0, 2, 1, 0


def test_without_mixing_it_is_the_accuracy() -> None:
    assert answered_share(LOGITS, torch.tensor([0, 1, 1, 2])).tolist() == [1, 0, 1, 0]


def test_an_answer_counts_as_much_as_there_is_of_it() -> None:
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]])
    assert answered_share(LOGITS, shares).tolist() == [0.75, 0.0, 0.25, 1.0]


def test_a_perfect_network_stays_below_one() -> None:
    """Naming either of the two counts by its share, so both together count once."""
    labels = torch.tensor([0, 1, 2, 1])
    _, shares = Mixing(mixup_alpha=1.0)(torch.randn(4, 3, 2, 4, 4), labels, 3, 0, 0, 0)
    own, other = (answered_share(torch.nn.functional.one_hot(answer, 3).float(), shares) for answer in (labels, labels.roll(1)))
    assert float((own + other).mean()) == pytest.approx(1)
    assert answered_share(shares, shares).mean() < 1
