"""The committed dashboards against Grafana's own types, those of the Grafana that the compose files name."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from grafana.build import FOLDER

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
STRICT = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext"]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TypeScript and Grafana's schema installed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is missing: the dashboards are not checked against Grafana's types here")
    folder = tmp_path_factory.mktemp("schema")
    shutil.copy(HERE / "package.json", folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"Grafana's schema cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return folder


def complaints(compiler: Path, dashboards: dict[str, str]) -> str:
    values = [f"export const {name}: Plain<Dashboard> = {text};" for name, text in dashboards.items()]
    (compiler / "all.ts").write_text((HERE / "schema.ts").read_text() + "\n".join(values))
    command = [compiler / "node_modules" / ".bin" / "tsc", *STRICT, "all.ts"]
    return subprocess.run(command, cwd=compiler, capture_output=True, text=True, timeout=240).stdout


@pytest.mark.slow
def test_grafanas_types_accept_the_dashboards(compiler: Path) -> None:
    assert complaints(compiler, {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.json"))}) == ""


@pytest.mark.slow
def test_they_refuse_what_grafana_does_not_know(compiler: Path) -> None:
    board = json.loads((FOLDER / "fleet.json").read_text())
    board["panels"][1]["gridPos"]["w"] = "wide"
    assert "not assignable" in complaints(compiler, {"fleet": json.dumps(board)})


def test_the_schema_is_that_of_the_grafana_we_run() -> None:
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]["@grafana/schema"]
    services = (PROJECT / "cluster" / "services.yaml").read_text()
    assert re.search(rf"grafana/grafana:{re.escape(wanted)}\b", services)
