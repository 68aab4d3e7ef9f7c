"""The model of many GPUs: exact where it must be, and with the right slopes."""

import pytest


def parts(**changes: float) -> "object":
    from scaling_model import Parts

    values = {"batch": 10, "step_s": 0.1, "variation": 0.0, "gradient_bytes": 1e7, "val_images_per_s": 1000.0}
    return Parts(**{"where": "here", **values, "epoch_s": 0.0, **changes})


def test_one_gpu_takes_what_was_measured() -> None:
    from scaling_model import DataSize, epoch_s, speed_up

    one = parts(epoch_s=0.5, variation=0.1)
    assert epoch_s(one, 1, DataSize(1000, 200)) == pytest.approx(100 * 0.1 + 0.2 + 0.5)
    assert speed_up(one, 1, DataSize(1000, 200)) == 1.0


def test_without_losses_it_is_linear_until_the_batches_run_out() -> None:
    from scaling_model import DataSize, pays_to, speed_up

    data = DataSize(10 * 64, 0)
    assert [speed_up(parts(), gpus, data) for gpus in (2, 8, 64, 128)] == pytest.approx([2, 8, 64, 64])
    assert pays_to(parts(), data) == 128


@pytest.mark.parametrize("loss", [{"variation": 0.1}, {"gradient_bytes": 1e10}, {"epoch_s": 1.0}])
def test_each_loss_costs(loss: dict[str, float]) -> None:
    from scaling_model import DataSize, speed_up

    data = DataSize(10**6, 0)
    assert speed_up(parts(**loss), 64, data) < 0.999 * speed_up(parts(), 64, data)


def test_gradients_are_hidden_by_the_backward_pass_until_they_take_longer() -> None:
    from scaling_model import Network, all_reduce_s, step_s

    assert all_reduce_s(parts(), 1, Network()) == 0.0
    assert step_s(parts(), 64, Network()) == pytest.approx(0.1)
    large = parts(gradient_bytes=2e9)
    assert all_reduce_s(large, 64, Network()) > 2 * 2e9 / 25e9
    assert step_s(large, 64, Network()) == pytest.approx(0.1 + all_reduce_s(large, 64, Network()) - 2 / 30)
