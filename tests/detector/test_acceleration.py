"""Faster ways of computing the same."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_detector import NAMES


@pytest.fixture
def model(model: Any) -> Any:
    """As it reads."""
    return model.eval()


PICTURES = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_attention_at_once_is_the_attention_of_ultralytics(model: Any) -> None:
    from ray_jobs.detector.acceleration import attend_at_once

    plain, _ = model(PICTURES)
    attend_at_once(model)
    changed = [name for name, module in model.named_modules() if "forward" in vars(module)]
    assert len(changed) == 8  # the blocks of area attention of yolo12n
    torch.testing.assert_close(model(PICTURES)[0], plain, rtol=1e-4, atol=1e-4)


def test_weights_of_an_accelerated_model_load_without_this_project(model: Any, tmp_path: Any) -> None:
    from ultralytics import YOLO

    from ray_jobs.detector.acceleration import attend_at_once, deep_convolutions_in_fp32
    from ray_jobs.detector.best_weights import write_weights

    model.names = dict(enumerate(NAMES))
    attend_at_once(model)
    deep_convolutions_in_fp32(model)
    write_weights(SimpleNamespace(ema=SimpleNamespace(ema=model), args=model.args, metrics={}), tmp_path / "best.pt")
    assert b"ray_jobs" not in (tmp_path / "best.pt").read_bytes()
    loaded = YOLO(tmp_path / "best.pt").model.float().eval()
    torch.testing.assert_close(loaded(PICTURES)[0], model.half().float()(PICTURES)[0], rtol=1e-3, atol=1e-3)


def test_depthwise_convolutions_stay_in_fp32_and_change_nothing_there(model: Any) -> None:
    from ray_jobs.detector.acceleration import deep_convolutions_in_fp32

    plain, _ = model(PICTURES)
    deep_convolutions_in_fp32(model)
    assert torch.equal(model(PICTURES)[0], plain)
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.requires_grad:
            deep = module.groups > 1
            module.register_forward_hook(lambda _, __, result, deep=deep: kinds[deep].add(result.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(PICTURES)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_a_fused_optimizer_makes_the_same_steps(kind: Any) -> None:
    from ray_jobs.detector.acceleration import fuse_optimizer

    ways = []
    for fuse in (lambda same: same, fuse_optimizer):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 4)
        optimizer = fuse(kind(layer.parameters(), lr=0.1, weight_decay=0.01))
        for step in range(5):
            layer(torch.full((2, 8), 1.0 + step)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ways.append(layer.weight.detach())
    assert optimizer.param_groups[0]["fused"]
    torch.testing.assert_close(ways[1], ways[0], rtol=1e-5, atol=1e-6)


def test_a_processor_is_asked_and_the_model_left_alone(model: Any) -> None:
    from ray_jobs.detector.precision import faster_precision

    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert faster_precision(model, images=2, size=64, world_size=1) in ("fp32", "bf16")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_whose_steps_are_recorded_has_the_loss_that_the_loop_asks_for(model: Any) -> None:
    """A GPU replays; here the step is only put in place, as it is before an epoch in which every batch is replayed."""
    from ray_jobs.detector.acceleration import record_steps
    from ray_jobs.detector.device_loader import DeviceLoader
    from ray_jobs.settings import SpeedSettings

    loader = object.__new__(DeviceLoader)
    loader.store = SimpleNamespace(most_boxes=2)
    arguments = SimpleNamespace(multi_scale=False, freeze=None, amp="bf16", imgsz=64)
    off = SimpleNamespace(is_enabled=lambda: False)
    trainer = SimpleNamespace(model=model, train_loader=loader, args=arguments, scaler=off, world_size=1, batch_size=2)
    assert record_steps(SpeedSettings(), trainer) is model.loss
    assert model.criterion is not None


@pytest.mark.parametrize("recorded", [True, False])
def test_a_try_with_a_smaller_batch_records_its_steps_again(
    model: Any, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """No GPU that runs out of memory is here: building the loaders and recording are stand-ins."""
    from ray_jobs.detector import trainer as trainer_room
    from ray_jobs.settings import SpeedSettings

    trainer = object.__new__(trainer_room.DetectorTraining)
    trainer.model, trainer.device, trainer.speed = model, torch.device("cpu"), SpeedSettings()
    trainer.place, trainer.world_size = SimpleNamespace(world_size=1), 1
    trainer._graph = SimpleNamespace(usual_loss=model.loss) if recorded else None  # type: ignore[assignment]
    trainer.optimizer = SimpleNamespace(zero_grad=lambda set_to_none=True: set_to_none)  # type: ignore[assignment]
    monkeypatch.setattr(trainer_room.TrainingData, "_build_train_pipeline", lambda _: None)
    monkeypatch.setattr(trainer_room, "record_steps", lambda *_: "recorded")
    trainer._build_train_pipeline()
    assert trainer._graph == ("recorded" if recorded else None)
    assert trainer.optimizer.zero_grad() is not recorded  # a replay writes into the gradients that were there
