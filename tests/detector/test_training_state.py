"""The copy of a state that is written while training goes on."""

from io import BytesIO
from pathlib import Path

import torch

from ray_jobs.detector.training_state import Snapshots, copied, load_state


def test_a_copy_does_not_change_with_what_it_was_made_of() -> None:
    state = {"model": {"weight": torch.ones(2)}, "groups": [{"lr": 0.1}, {"lr": 0.2}], "epoch": 3}
    copy = copied(state)
    state["model"]["weight"].fill_(5)
    assert copy["model"]["weight"].tolist() == [1, 1]
    assert copy["groups"] == [{"lr": 0.1}, {"lr": 0.2}]
    assert copy["epoch"] == 3


def test_memory_of_an_earlier_copy_is_used_again_where_it_fits() -> None:
    first = copied({"a": torch.ones(2), "b": torch.ones(3), "list": [torch.ones(1)]})
    state = {"a": torch.full((2,), 7.0), "b": torch.zeros(4), "c": torch.zeros(1), "list": [torch.full((1,), 8.0)]}
    second = copied(state, first)
    assert second["a"] is first["a"]
    assert second["list"][0] is first["list"][0]
    assert second["b"] is not first["b"]
    assert {name: second[name].tolist() for name in "abc"} == {"a": [7, 7], "b": [0, 0, 0, 0], "c": [0]}
    assert second["list"][0].tolist() == [8]
    assert set(copied({"a": torch.ones(2)}, second)) == {"a"}  # gradients that waited are gone


def test_a_state_that_can_still_be_written_is_left_alone(tmp_path: Path) -> None:
    """As where an upload is tried again while training has gone on."""
    state, snapshots = {"format": 1, "weight": torch.zeros(2)}, Snapshots()
    write = snapshots.take(state, {"results.csv": BytesIO(b"1")})
    state["weight"].fill_(1)
    write_again = snapshots.take(state, {})
    write(tmp_path)
    assert load_state(tmp_path / "state.pt")["weight"].tolist() == [0, 0]
    assert (tmp_path / "results.csv").read_bytes() == b"1"
    memory = snapshots._state["weight"]
    del write_again
    state["weight"].fill_(2)
    snapshots.take(state, {})(tmp_path)
    assert snapshots._state["weight"] is memory
    assert load_state(tmp_path / "state.pt")["weight"].tolist() == [2, 2]


def test_a_file_that_is_replaced_later_is_written_as_it_was(tmp_path: Path) -> None:
    best = tmp_path / "best.pt"
    best.write_bytes(b"old")
    file = best.open("rb")
    write = Snapshots().take({"format": 1}, {"best.pt": file})
    (tmp_path / "new").write_bytes(b"newer")
    (tmp_path / "new").replace(best)
    for turn in ("first", "again"):  # an upload that failed
        (tmp_path / turn).mkdir()
        write(tmp_path / turn)
        assert (tmp_path / turn / "best.pt").read_bytes() == b"old"
    assert not file.closed
    del write
    assert file.closed


def test_parameters_are_copied_without_their_gradients() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    copy = copied({"weight": weight})["weight"]
    assert not copy.requires_grad
    assert copied({"weight": weight}, {"weight": copy})["weight"] is copy
