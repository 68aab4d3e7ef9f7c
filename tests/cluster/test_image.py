"""The platform's image: an ordinary user, the project's code, and nothing that builds programs."""

from tests.cluster.engine import docker

COMPILERS = ("gcc", "cc", "g++", "clang", "make")


def test_the_image_runs_as_an_ordinary_user_without_a_compiler(image: str) -> None:
    shown = docker(
        "run", "--rm", "--network", "none", image, "sh", "-c", f"id -u; command -v {' '.join(COMPILERS)}; true"
    )
    assert shown.split() == ["1000"]


def test_the_folders_that_volumes_fill_are_that_users(image: str) -> None:
    folders = ("/app/runs", "/app/weights", "/data-cache", "/mlflow", "/ray-dashboards", "/gpu-claims")
    shown = docker("run", "--rm", "--network", "none", image, "stat", "--format", "%u", *folders)
    assert shown.split() == ["1000"] * len(folders)


def test_code_comes_after_the_packages_so_that_a_change_of_code_rebuilds_little(image: str) -> None:
    steps = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).splitlines()
    code = next(number for number, step in enumerate(steps) if "/app/ray_jobs" in step)
    packages = next(number for number, step in enumerate(steps) if "/opt/venv" in step and "COPY" in step)
    assert code < packages, "the newest step stands first"
