"""Profile `redis`: the head is killed and started again, and the worker with what runs on it never notices."""

from collections.abc import Callable

import pytest

from tests.cluster.engine import PROJECT, Environment, docker, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(420)]
ACTOR = (PROJECT / "tests" / "faults" / "counting_actor.py").read_text()


def ask(head: str) -> tuple[str, str]:
    """The process of the actor that counts, and its count, once the head answers."""

    def answer() -> str:
        try:
            return docker("exec", head, "python", "-c", ACTOR, "auto", timeout=120).partition("COUNTED ")[2]
        except RuntimeError:
            return ""

    pid, count = str(wait_for("an answer of the actor", answer, timeout=240, poll=2)).split()
    return pid, count


def test_a_head_that_is_killed_and_started_again_keeps_its_cluster(new_environment: Callable[..., Environment]) -> None:
    redis = {"COMPOSE_PROFILES": "redis", "RAY_REDIS_ADDRESS": "redis:6379", "RAY_REDIS_PASSWORD": "0123456789abcdef"}
    environment = new_environment("docker-compose-ray-cuda.yaml", RAY_WORKERS="1", **redis)
    environment.up("ray-worker")
    names = {str(each["Service"]): str(each["Name"]) for each in environment.containers()}
    assert set(names) == {"redis", "ray-head", "ray-worker"}
    pid, count = ask(names["ray-head"])
    assert count == "1"
    docker("kill", names["ray-head"])
    docker("start", names["ray-head"])
    assert ask(names["ray-head"]) == (pid, "2")  # the same process, with what it knew
    assert docker("inspect", names["ray-worker"], "--format", "{{.RestartCount}}").strip() == "0"
