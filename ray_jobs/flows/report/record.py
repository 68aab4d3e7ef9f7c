"""The part of a run's report that says how it was made: time, data, settings, versions.

In: the run's summary, settings and environment. Out: ``Html``.
"""

from collections.abc import Sequence
from typing import Any

from ray_jobs.flows.run_log import flatten
from ray_jobs.report.page import Html, definitions, duration, element, join, parts_of_whole, section, table
from ray_jobs.settings import Settings


def cost_section(summary: dict[str, Any], environment: dict[str, Any]) -> Html:
    """Seconds by stage."""
    timings = summary["timings"]
    stages = {
        "check": "data check",
        "startup": "starting workers",
        "train": "training",
        "evaluate": "evaluation",
        "export": "ONNX",
        "log": "logging",
    }
    parts = [
        (stages.get(name, name), seconds, duration(seconds))
        for name, seconds in timings.items()
        if name != "total" and seconds >= 0.05
    ]
    machine = environment.get("gpus") or [environment.get("cpu", "")]
    lead = (
        f"{duration(timings['total'])} in all, on {summary['world_size']} worker{'s' * (summary['world_size'] > 1)} "
        f"({', '.join(str(name) for name in machine)}); {summary['images_per_second']:.1f} images/s in training."
    )
    return section("Where the time went", parts_of_whole(parts), lead=lead)


def data_section(summary: dict[str, Any], names: Sequence[str], fingerprint: str) -> Html:
    """Images and boxes by split, and the data set's fingerprint."""
    counts = summary["dataset"]["counts"]
    splits = list(counts)
    rows: list[Sequence[object]] = [
        ["Images", *(counts[split]["images"] for split in splits)],
        ["Images without findings", *(counts[split]["background"] for split in splits)],
        ["Boxes", *(counts[split]["boxes"] for split in splits)],
    ]
    known = [name for name in names if all(name in counts[split]["per_class"] for split in splits)]
    rows += [[name, *(counts[split]["per_class"][name] for split in splits)] for name in known]
    lead = join(["Fingerprint ", element("code", fingerprint)])
    return section("Data", table(["", *splits], rows, numbers=range(1, 1 + len(splits))), lead=lead)


def settings_section(settings: Settings) -> Html:
    """All settings, those that are not the default first."""
    values, defaults = flatten(settings.as_dict()), flatten(Settings().as_dict())
    changed = [name for name, value in values.items() if value != defaults.get(name)]
    ordered = changed + [name for name in values if name not in changed]
    lead = "Those that are not the default come first, in bold. settings.yaml in the run's folder repeats the run."
    return section("Settings", definitions(((name, _as_in_yaml(values[name])) for name in ordered), changed), lead=lead)


def _as_in_yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def versions(environment: dict[str, Any]) -> list[str]:
    """A line for the page's foot; none where nothing is known."""
    packages = environment.get("packages", {})
    named = [f"{name} {packages[name]}" for name in ("xray-ray", "ray", "torch", "ultralytics") if name in packages]
    commit = (environment.get("git") or {}).get("commit")
    return [", ".join([*named, *([f"commit {commit[:12]}"] if commit else [])])] if named else []
