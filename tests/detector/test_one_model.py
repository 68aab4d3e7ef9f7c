"""A digest of the weights: the same for the same weights, and an error where ranks differ."""

from typing import Any

import pytest
import torch

from ray_jobs.detector import one_model
from ray_jobs.errors import TrainingError


def test_the_digest_is_that_of_the_parameters() -> None:
    torch.manual_seed(0)
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert one_model.one_digest(one, 1, 1) != one_model.one_digest(other, 1, 1)
    other.load_state_dict(one.state_dict())
    assert one_model.one_digest(one, 1, 1) == one_model.one_digest(other, 1, 1)


def test_ranks_with_different_weights_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank is a stand-in; two real ones with equal weights are in test_trainer."""

    def gather(digests: list[str], mine: Any) -> None:
        digests[:] = [mine, "another"]

    monkeypatch.setattr(one_model.dist, "all_gather_object", gather)
    with pytest.raises(TrainingError, match=r"epoch 4: the ranks hold different weights.*go on with --resume"):
        one_model.one_digest(torch.nn.Linear(3, 2), 4, 2)
