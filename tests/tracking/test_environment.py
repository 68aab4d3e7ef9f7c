"""The description of the machine: complete, plain, and without names."""

import getpass
import json
import socket

from ray_jobs.tracking.environment import describe_environment


def test_it_names_versions_and_hardware_and_nobody() -> None:
    text = json.dumps(environment := describe_environment())
    assert environment["packages"]["mlflow"] == "3.17.2"
    assert environment["cores"] >= environment["usable_cores"] >= 1
    assert environment["memory_gb"] > 0.5
    assert environment["cpu"]
    assert environment["git"] is None or len(environment["git"]["commit"]) == 40
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text


def test_without_git_and_a_driver_it_says_none(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    environment = describe_environment()
    assert environment["git"] is None
    assert environment["gpus"] == []
