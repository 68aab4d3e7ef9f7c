"""Ray Train's ``TorchTrainer`` without the processes that a run here has no use for: each takes seconds to start."""

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

from ray_jobs.flows.controller_parts import FixedNodes


class LeanTrainer(TorchTrainer):
    """``TorchTrainer`` for data that does not come from Ray Data.

    ``alone``: Ray was started for this run and ends with it. Then nobody adds nodes, and no placement group outlives
    its run.
    """

    def __init__(self, *arguments: Any, alone: bool, **keywords: Any) -> None:
        self.alone = alone
        super().__init__(*arguments, **keywords)

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback) if self.alone else DatasetsCallback
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if self.alone and isinstance(parts["scaling_policy"], FixedScalingPolicy):
            parts["scaling_policy"] = FixedNodes(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)
