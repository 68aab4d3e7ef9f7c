"""What Ray Train's controller is given; that it works is shown by every test that trains."""

import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig

from ray_jobs.flows.controller_parts import FixedNodes, ProcessGroup


@pytest.mark.slow
def test_ray_trains_controller_does_without_pytorch() -> None:
    """What it unpickles and calls; a run waits for it to start."""
    parts = pickle.dumps((ProcessGroup(60, "gloo"), FixedNodes(ScalingConfig(num_workers=2))))
    code = f"""
import pickle, sys
import ray_jobs.flows.controller_lines
from ray.train.v2._internal.execution.controller import TrainController
group, policy = pickle.loads({parts!r})
group.backend_cls()
assert policy.make_decision_for_non_running_worker_group().num_workers == 2
assert "torch" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_ray_train_is_told_that_it_is_pytorch() -> None:
    from ray.train.torch import TorchConfig

    ours, usual = ProcessGroup(1800, "gloo"), TorchConfig("gloo")
    assert ours.framework == usual.framework
    assert ours.train_func_context is usual.train_func_context
    assert ours.backend_cls().share_cuda_visible_devices == usual.backend_cls().share_cuda_visible_devices
    assert ours.to_dict().items() <= usual.to_dict().items()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # Ray copies its own settings
@pytest.mark.parametrize("alone", [True, False])
def test_a_run_on_its_own_ray_starts_fewer_of_ray_trains_processes(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails where Ray Train calls these methods no more."""
    from ray.train import RunConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from ray_jobs.flows.lean_trainer import LeanTrainer

    given: dict[str, Any] = {}

    def run(_: Any, **parts: Any) -> SimpleNamespace:
        given.update(parts)
        return SimpleNamespace(error=None)

    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", run)
    trainer = LeanTrainer(
        print,
        alone=alone,
        torch_config=ProcessGroup(60),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="run", storage_path=str(tmp_path)),
    )
    trainer.fit()
    assert isinstance(given["scaling_policy"], FixedNodes) == alone
    kinds = {type(callback).__name__ for callback in given["callbacks"]}
    assert {"AcceleratorSetupCallback", "BackendSetupCallback"} <= kinds
    assert "DatasetsCallback" not in kinds
    assert ("PlacementGroupCleanerCallback" in kinds) != alone
