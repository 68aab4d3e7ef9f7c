"""Decide whether a registered detector becomes the champion, or go back to the champion before.

    python -m ray_jobs.promote --model xray-detector                  # the challenger against the champion
    python -m ray_jobs.promote --model xray-detector --version 7      # a certain version
    python -m ray_jobs.promote --run runs/RUN                         # a run whose decision waited for a server
    python -m ray_jobs.promote --model xray-detector --rollback       # back to the champion before this one
    python -m ray_jobs.promote --model xray-detector --history        # who was champion, and why

Both models are measured on the test split of the version's own data set, whose fingerprint must be the registered one.
The rules are those of ``tracking.promotion``. Exit codes: 0 promoted, or rolled back; 3 refused, with the reasons;
1 failed while running (the server is down, another promotion does not end), 2 bad input.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_jobs.dataset.source import describe_data, is_in_bucket
from ray_jobs.entry import run_job
from ray_jobs.errors import BadInput, DataError
from ray_jobs.flows.preparation import check_data
from ray_jobs.flows.promotion import Candidate, promote, promote_finished
from ray_jobs.flows.retraining import run_settings, tracking_uri
from ray_jobs.flows.run_folder import RunFolder
from ray_jobs.overrides import apply_overrides
from ray_jobs.settings import DataCheckSettings, PromotionSettings, Settings, load_config_with_defaults
from ray_jobs.tracking.promotion import Registry
from ray_jobs.tracking.registered_model import (
    ONNX_ARTIFACT,
    ONNX_TAG,
    ModelVersion,
    fetch_file,
    fetch_weights,
    parse_address,
)
from ray_jobs.yaml_source import read_yaml

REFUSED = 3


def main(arguments: Sequence[str]) -> int:
    """Promote, refuse, roll back or tell; see the exit codes above."""
    options = _parse(arguments)
    if options.run:
        return _code(promote_finished(RunFolder(options.run.resolve()), _say))
    settings = load_config_with_defaults(options.config, options.overrides).with_absolute_paths()
    parse_address(f"models:/{options.model}/1")  # refuses what is no name
    registry = Registry(tracking_uri(settings), options.model, settings.tracking.promotion.champion)
    if options.history:
        for change in registry.history():
            _say("{time}  {action}: version {from} -> {to}  ({reason})".format(**change))
        return 0
    if options.rollback:
        left, back = registry.roll_back(options.reason)
        _say(f"{back} is the {registry.alias} again; {left} was rolled back: {options.reason}")
        return 0
    version = registry.version(options.version or f"@{settings.tracking.alias}")
    trained_with = run_settings(registry.uri, version)
    settings = _with_rules_of(trained_with, settings, _given(options))
    registry = Registry(registry.uri, options.model, settings.tracking.promotion.champion)
    candidate = _candidate(settings, trained_with, registry.uri, version, options.data)
    return _code(promote(settings, registry, candidate, _say))


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What --config and the command line say, as a tree."""
    values = dict(read_yaml(options.config).values) if options.config else {}
    apply_overrides(values, options.overrides)
    return values


def _with_rules_of(run: Settings, settings: Settings, given: dict[str, Any]) -> Settings:
    """The settings with ``data_check`` and ``tracking.promotion`` of the version's own run, key by key except where
    ``given``: a promotion by hand decides as the run itself would have."""
    check = run.data_check.model_dump() | given.get("data_check", {})
    rules = run.tracking.promotion.model_dump() | given.get("tracking", {}).get("promotion", {})
    tracking = settings.tracking.model_copy(update={"promotion": PromotionSettings(**rules)})
    return settings.model_copy(update={"data_check": DataCheckSettings(**check), "tracking": tracking})


def _candidate(
    settings: Settings, trained_with: Settings, uri: str, version: ModelVersion, data: str | None
) -> Candidate:
    """The version's files, fetched and verified, and its data set, checked. Raises ``BadInput``."""
    data = data or trained_with.data
    if data is None or not (is_in_bucket(data) or Path(data).is_file()):
        raise BadInput(f"{version}: was trained on {data}, which is not on this machine; give --data")
    checked_with = trained_with.model_copy(update={"data_check": settings.data_check})
    report = check_data(checked_with, describe_data(data, settings.storage.data_cache, _say))
    known = version.tags.get("dataset_fingerprint")
    if known and report.fingerprint != known:
        raise DataError(
            f"{data}: is not the data set that {version} was registered with (fingerprint {report.fingerprint[:12]}, "
            f"registered {known[:12]}): what it was trained on may be in the test split now; put the data back"
        )
    folder = Path(settings.weights_dir) / "registered"
    onnx = fetch_file(uri, version, ONNX_ARTIFACT, version.tags.get(ONNX_TAG), folder)
    return Candidate(version, fetch_weights(uri, version, folder), onnx, report.index)


def _code(outcome: dict[str, Any]) -> int:
    return {"promoted": 0, "refused": REFUSED}.get(outcome["state"], 1)


def _say(line: str) -> None:
    print(line, flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_jobs.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="NAME", help="the registered model")
    which.add_argument("--run", type=Path, metavar="RUN_DIR", help="a finished run whose decision waits")
    parser.add_argument("--version", metavar="N", help="the version; without it, the challenger")
    parser.add_argument("--rollback", action="store_true", help="make the champion before this one champion again")
    parser.add_argument("--reason", default="rolled back by hand", help="why, for the record of --rollback")
    parser.add_argument("--history", action="store_true", help="show every change of the champion")
    parser.add_argument("--data", metavar="YAML", help="where the version's data set lies on this machine")
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings (tracking, device)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace those of --config")
    options = parser.parse_intermixed_args(arguments)
    if options.run and (options.version or options.rollback or options.history or options.data):
        parser.error("--run stands alone: the run knows its version and its data")
    if sum(map(bool, (options.version, options.rollback, options.history))) > 1:
        parser.error("--version, --rollback and --history exclude each other")
    return options


if __name__ == "__main__":
    run_job(main)
