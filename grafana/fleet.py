"""All runs of the last day: how are they, and what did they cost?"""

from typing import Any

from grafana.panels import board, lines, listing, number, run_variable

# A driver that lives says when it began; the newest stage is the one that a run is in, or ended in.
_ACTIVE = 'max by (run) (ray_xray_run_start_timestamp_seconds{run=~"$run"}) > bool 0'
_HOURS = f"sum_over_time(({_ACTIVE})[24h:1m]) / 60"
_STAGES = 'max by (run, stage) (last_over_time(ray_xray_stage_start_timestamp_seconds{run=~"$run"}[24h]))'
_STATE = f"topk by (run) (1, {_STAGES})"
_RANK_HOURS = 'sum_over_time((sum by (run) (max by (run, rank) (ray_xray_rank_up{run=~"$run"})))[24h:1m]) / 60'


def _last(metric: str) -> str:
    return f'max by (run) (last_over_time({metric}{{run=~"$run"}}[24h]))'


def _ended(stage: str) -> str:
    these = _STAGES.replace("{", f'{{stage="{stage}", ')
    return f"count({_STATE} and on (run, stage) {these}) or vector(0)"


def build() -> Any:
    """The dashboard."""
    how = [
        number("Going on", "Runs and searches at this moment.", f"count({_ACTIVE}) or vector(0)"),
        number("Finished today", "In the last 24 hours.", _ended("finished")),
        number(
            "Failed today",
            "In the last 24 hours.",
            _ended("failed"),
            limits=[(None, "green"), (1, "orange"), (3, "red")],
        ),
        number("Stopped today", "By Ctrl-C or a signal; they can be continued.", _ended("stopped")),
        number("Hours spent today", "Of all runs, added up.", f"sum({_HOURS})", "h"),
        number("Rank hours today", "Those of every rank: GPU hours where each has one.", f"sum({_RANK_HOURS})", "h"),
        listing(
            "All runs of the last 24 hours",
            "State, age and what each has come to. A run without a last step in ten minutes is stuck.",
            "run",
            [
                ("", _STATE, "none"),
                ("age", f"time() - {_last('ray_xray_run_start_timestamp_seconds')}", "s"),
                ("epoch", _last("ray_xray_epoch"), "none"),
                ("of", _last("ray_xray_epochs_planned"), "none"),
                ("best mAP50-95", _last("ray_xray_best_map50_95"), "percentunit"),
                ("test mAP50", _last("ray_xray_test_map50"), "percentunit"),
                ("hours", _HOURS, "h"),
                ("rank hours", _RANK_HOURS, "h"),
                (
                    "restarts",
                    'round(sum by (run) (max_over_time(ray_xray_restarts_total{run=~"$run"}[24h])))',
                    "none",
                ),
                ("last step", f"time() - {_last('ray_xray_last_step_timestamp_seconds')}", "s"),
            ],
            shown={"stage": "state"},
        ),
    ]
    cost = [
        lines(
            "Which runs are going on?",
            "1 for each run at work.",
            (_ACTIVE, "{{run}}"),
            stacked=True,
            width=12,
        ),
        lines(
            "Ranks in use",
            "By run; together what of the cluster is used.",
            ('sum by (run) (max by (run, rank) (ray_xray_rank_up{run=~"$run"}))', "{{run}}"),
            stacked=True,
            width=12,
        ),
        lines(
            "Which run is best?",
            "Best mAP50-95 on each run's own validation split: compare runs of the same data only.",
            ('max by (run) (ray_xray_best_map50_95{run=~"$run"})', "{{run}}"),
            unit="percentunit",
            high_at_least=0.1,
            width=12,
        ),
        lines(
            "Speed",
            "Images per second of each run.",
            ('max by (run) (ray_xray_images_per_second{run=~"$run"})', "{{run}}"),
            width=12,
        ),
        number(
            "Models registered today",
            "Versions, in the last 24 hours.",
            'round(sum(max_over_time(ray_xray_registered_models_total{run=~"$run"}[24h]))) or vector(0)',
            width=5,
        ),
        number(
            "Promotions today",
            "Decisions in favour.",
            'sum(max_over_time(ray_xray_promotions_total{run=~"$run", decision="promoted"}[24h])) or vector(0)',
            width=6,
        ),
        number(
            "X-rays read",
            "By the reading service, each second.",
            "sum(rate(ray_xray_reads_total[5m])) or vector(0)",
            "reqps",
        ),
        number(
            "Findings in each",
            "Mean of the last hour. A jump means other X-rays or another model.",
            "round(sum(rate(ray_xray_read_findings_total[1h])) / sum(rate(ray_xray_reads_total[1h])), 0.01)",
        ),
        number(
            "Time to read one",
            "Mean of the last five minutes.",
            "sum(rate(ray_xray_read_seconds_total[5m])) / sum(rate(ray_xray_reads_total[5m]))",
            "s",
            width=5,
        ),
    ]
    return board(
        "xray-fleet",
        "Fleet: how are all runs of today, and what did they cost?",
        "Every run of the last 24 hours.",
        run_variable("Runs", several=True),
        ("How are they?", how),
        ("What did they cost?", cost),
    )
