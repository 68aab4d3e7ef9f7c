"""One search: who is ahead, what was stopped, what did it cost?"""

from typing import Any

from grafana.panels import bars, board, lines, number, run_variable


def _last(metric: str, by: str = "run", more: str = "") -> str:
    return f'max by ({by}) (last_over_time({metric}{{run="$run"{more}}}[$__range]))'


def build() -> Any:
    """The dashboard."""
    failed, all_trials = (
        _last("ray_xray_trials", "run", ', state="failed"'),
        f"sum({_last('ray_xray_trials', 'state')})",
    )
    ahead = [
        number("Best so far", "The best value of the search's metric.", _last("ray_xray_search_best"), "percentunit"),
        number("Trials", "Begun or waiting.", all_trials),
        number("Running", "At this moment.", _last("ray_xray_trials", "run", ', state="running"')),
        number(
            "Stopped early", "By the scheduler, for lying behind.", _last("ray_xray_trials", "run", ', state="stopped"')
        ),
        number("Finished", "Trained to their end.", _last("ray_xray_trials", "run", ', state="finished"')),
        number("Failed", "Ended with an error.", failed, limits=[(None, "green"), (1, "orange"), (3, "red")]),
        bars(
            "Who is ahead?",
            "The best value of each trial so far, the best ten.",
            (f"topk(10, {_last('ray_xray_trial_metric', 'trial')})", "trial {{trial}}"),
            unit="percentunit",
            width=12,
        ),
        lines(
            "How did they get there?",
            "Each trial's best value over time, and the search's.",
            ('max by (trial) (ray_xray_trial_metric{run="$run"})', "trial {{trial}}"),
            ('max by (run) (ray_xray_search_best{run="$run"})', "best"),
            unit="percentunit",
            high_at_least=0.1,
            width=12,
        ),
    ]
    stopped = [
        lines(
            "Trials by state",
            "Stopped ones were cut short by the scheduler; failed ones have their error in the search's folder.",
            ('max by (state) (ray_xray_trials{run="$run"})', "{{state}}"),
            stacked=True,
            width=12,
        ),
        bars(
            "How far did each come?",
            "Epochs that each trial has trained.",
            (f"sort_desc({_last('ray_xray_trial_epoch', 'trial')})", "trial {{trial}}"),
            width=12,
        ),
    ]
    cost = [
        number("Epochs trained", "By all trials together.", _last("ray_xray_search_epochs")),
        number("Epochs saved", "That stopped trials did not train.", _last("ray_xray_search_epochs_saved")),
        number(
            "Share saved",
            "Of all epochs that the search would have trained without stopping any.",
            f"{_last('ray_xray_search_epochs_saved')} / "
            f"({_last('ray_xray_search_epochs')} + {_last('ray_xray_search_epochs_saved')})",
            "percentunit",
        ),
        number("Trial time", "All trials added up.", f"sum({_last('ray_xray_trial_seconds', 'trial')})", "s"),
        number(
            "Share failed",
            "Of all trials.",
            f"sum({failed}) / {all_trials}",
            "percentunit",
            limits=[(None, "green"), (0.2, "orange"), (0.5, "red")],
        ),
        number(
            "Going on for", "Since the search began.", f"time() - {_last('ray_xray_run_start_timestamp_seconds')}", "s"
        ),
        bars(
            "What did each trial cost?",
            "Seconds that each trial has run.",
            (f"sort_desc({_last('ray_xray_trial_seconds', 'trial')})", "trial {{trial}}"),
            unit="s",
            width=12,
        ),
        lines(
            "Epochs trained and saved",
            "Over time.",
            ('max by (run) (ray_xray_search_epochs{run="$run"})', "trained"),
            ('max by (run) (ray_xray_search_epochs_saved{run="$run"})', "saved"),
            width=12,
        ),
    ]
    return board(
        "xray-tuning",
        "Tuning: who is ahead, what was stopped, what did it cost?",
        "One search, from top to bottom.",
        run_variable("Search", of="ray_xray_trials"),
        ("Who is ahead?", ahead),
        ("What was stopped?", stopped),
        ("What did it cost?", cost),
    )
