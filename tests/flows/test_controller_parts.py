"""What Ray Train's controller is given; that it works is shown by every test that trains."""

import pickle
import subprocess
import sys

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
