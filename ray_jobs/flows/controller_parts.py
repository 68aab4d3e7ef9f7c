"""Parts of Ray Train's controller, a process that every run starts and waits for: without PyTorch, without waiting.

``ProcessGroup`` joins the workers in a PyTorch process group, as Ray Train's ``TorchConfig`` does; that one imports
PyTorch in the controller, seconds that end before the first worker may begin. Here only the workers do.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import GetTimeoutError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.constants import DEFAULT_TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S, TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.util import TrainingFramework

logger = logging.getLogger(__name__)


class FixedNodes(FixedScalingPolicy):
    """For a Ray that gets no more nodes. Asks no autoscaler for them: the controller would wait until that starts."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


@dataclass
class ProcessGroup(BackendConfig):
    """``timeout_s``: how long ranks wait for each other. ``backend``: ``TorchTrainer`` writes nccl or gloo into it."""

    timeout_s: int
    backend: str | None = None

    @property
    def backend_cls(self) -> type[Backend]:
        """What the controller does with the workers."""
        return _Ranks

    @property
    def train_func_context(self) -> Any:
        """What a worker's function runs in: it chooses the worker's GPU."""
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager

    @property
    def framework(self) -> TrainingFramework:
        """What Ray's dashboard shows."""
        return TrainingFramework.TORCH

    def to_dict(self) -> dict[str, Any]:
        """What Ray's dashboard shows of this."""
        return {"backend": self.backend, "timeout_s": self.timeout_s}


class _Ranks(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        """Have every worker join; returns when all have."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        size = len(worker_group)
        group = (backend_config.backend, address, port, size, backend_config.timeout_s)
        ray.get([worker_group.execute_single_async(rank, _join, rank, *group) for rank in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroup) -> None:  # noqa: ARG002 - Ray's signature
        """Have every worker leave, unless one does not answer."""
        leaving = worker_group.execute_async(_leave, len(worker_group) > 1)
        usual = DEFAULT_TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S
        limit_s = ray_constants.env_integer(TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S, usual)
        try:
            ray.get(leaving, timeout=limit_s)
        except GetTimeoutError:
            logger.warning("workers did not leave their process group within %d s", limit_s)


def _join(rank: int, backend: str, address: str, port: int, size: int, timeout_s: int) -> None:
    """Runs in a worker."""
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(backend, rank, size, "env://", timeout_s)


def _leave(several: bool) -> None:
    """Runs in a worker."""
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=several)
