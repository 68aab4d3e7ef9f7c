"""Write grafana/dashboards/*.json, which Grafana provisions, from the modules beside this one.

    make dashboards          # python -m grafana.build

The JSON is committed; a test builds it again and compares, and refuses metrics that ``ray_jobs.telemetry`` does not
know.
"""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import cluster, fleet, training, tuning

FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, Any]:
    """Every dashboard by its file's name, as plain values."""
    modules = {"training": training, "tuning": tuning, "cluster": cluster, "fleet": fleet}
    return {f"{name}.json": _plain(module.build()) for name, module in modules.items()}


def _plain(board: Any) -> Any:
    made = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    del made["style"]  # Grafana knows it no more
    for variable in made["templating"]["list"]:
        for name in ("auto", "auto_count", "auto_min", "id"):  # the SDK gives every variable those of intervals
            del variable[name]
    return made


def text(dashboard: Any) -> str:
    """As it is committed."""
    return json.dumps(dashboard, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for file, content in dashboards().items():
        (FOLDER / file).write_text(text(content), encoding="utf-8")
        panels = [panel for panel in content["panels"] if panel["type"] != "row"]
        print(f"{file}: {len(panels)} panels, {sum(len(panel['targets']) for panel in panels)} queries")
