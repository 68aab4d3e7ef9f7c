"""From a request, or a cycle, to the command that the cluster runs.

In: the service's options and what was asked for. Out: an ``Order``, whose settings were read as the job will read them,
so that bad ones are refused at once. What the service itself sets, a request cannot change.
"""

import json
import uuid
from pathlib import Path
from typing import Literal

from ray_jobs.errors import BadInput
from ray_jobs.triggering.messages import FinetuneRequest, TrainingRequest
from ray_jobs.triggering.options import JobOptions, TriggerOptions
from ray_jobs.triggering.ray_jobs_api import Order, train_command


class NoSuchData(BadInput):
    """A request names a data set that is not there, or not for it to read."""


class NameTaken(BadInput):
    """There is a run of this name."""


def training_order(options: TriggerOptions, request: TrainingRequest) -> Order:
    """The job of a request for training. Raises ``BadInput`` for settings or paths that cannot be used."""
    job_id = f"training-{uuid.uuid4().hex[:12]}"
    run_name = free_name(options, request.run_name or job_id)
    data = allowed_path(options, request.data) if request.data else options.training.data
    arguments = ["--data", str(data), *_arguments(options, options.training, run_name, request)]
    return Order(job_id, "training", run_name, train_command(options.python, "train", arguments))


def finetune_order(options: TriggerOptions, request: FinetuneRequest) -> Order:
    """The job of a request for fine-tuning on a data set that it names."""
    job_id = f"finetune-{uuid.uuid4().hex[:12]}"
    data = allowed_path(options, request.data or "")
    return _finetune(options, request, job_id, data, free_name(options, request.run_name or job_id), "request")


def cycle_order(options: TriggerOptions, request: FinetuneRequest, cycle_id: str, data: Path) -> Order:
    """The job that fine-tunes on the images of a cycle."""
    return _finetune(options, request, cycle_id, data, request.run_name or cycle_id, "watch")


def _finetune(
    options: TriggerOptions,
    request: FinetuneRequest,
    job_id: str,
    data: Path,
    run_name: str,
    started_by: Literal["request", "watch"],
) -> Order:
    model = f"models:/{request.model or f'{options.model}@{options.alias}'}"
    arguments = ["--from", model, "--data", str(data), *_arguments(options, options.finetune, run_name, request)]
    command = train_command(options.python, "retrain", arguments)
    return Order(job_id, "finetune", run_name, command, started_by)


def allowed_path(options: TriggerOptions, text: str) -> Path:
    """A data.yaml that a request names: below one of ``data_roots``, links followed. Raises ``NoSuchData``."""
    refused = NoSuchData("data: no such .yaml file inside a folder of data_roots")
    try:
        path = Path(text).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise refused from None
    inside = any(path.is_relative_to(root) for root in options.data_roots)
    if not inside or path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise refused
    return path


def free_name(options: TriggerOptions, run_name: str) -> str:
    """A run's name that no run has. Raises ``NameTaken``."""
    if (options.runs / run_name).exists():
        raise NameTaken(f"run_name: {run_name}: there is a run of this name; choose another")
    return run_name


def _arguments(options: TriggerOptions, job: JobOptions, run_name: str, request: TrainingRequest) -> list[str]:
    asked = request.settings.model_dump(exclude_none=True)
    job.read_settings(asked)  # refuses what the job would refuse
    config = ["--config", str(job.config)] if job.config else []
    return [*config, "--run-name", run_name, *job.pairs(asked), f"output_dir={json.dumps(str(options.runs))}"]
