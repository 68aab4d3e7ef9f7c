"""One run: is it learning, is it fed, is it safe?"""

from typing import Any

from grafana.panels import board, lines, number, run_variable

_RUN = '{run="$run"}'


def _last(metric: str, by: str = "run") -> str:
    """The newest value in the time that is shown, also of a run that has ended."""
    return f"max by ({by}) (last_over_time({metric}{_RUN}[$__range]))"


def _now(metric: str, by: str = "run") -> str:
    """Over time. Workers that were started again have other hidden labels: one series is made of them."""
    return f"max by ({by}) ({metric}{_RUN})"


def build() -> Any:
    """The dashboard."""
    where = [
        number(
            "Where is it?",
            "The stage that the run is in, or ended in.",
            'topk(1, max by (stage) (last_over_time(ray_xray_stage_start_timestamp_seconds{run="$run"}[$__range])))',
            legend="{{stage}}",
        ),
        number("Epochs finished", "Finished so far.", _last("ray_xray_epoch")),
        number("Epochs planned", "Early stopping may end it sooner.", _last("ray_xray_epochs_planned")),
        number(
            "Time left",
            "What is left of the planned epochs, each as long as the last one.",
            f"({_last('ray_xray_epochs_planned')} - {_last('ray_xray_epoch')}) * {_last('ray_xray_epoch_seconds')}",
            "s",
        ),
        number("Best mAP50-95", "On the validation split, so far.", _last("ray_xray_best_map50_95"), "percentunit"),
        number("Best epoch", "Its weights are best.pt.", _last("ray_xray_best_epoch")),
    ]
    learning = [
        lines(
            "Is the training loss falling?",
            "Mean of each epoch, by part. Rising or flat from the start: lower lr0.",
            (_now("ray_xray_train_loss", "loss"), "{{loss}}"),
        ),
        lines(
            "Is the validation loss falling too?",
            "Rising while the training loss falls means that the network learns by heart.",
            (_now("ray_xray_val_loss", "loss"), "{{loss}}"),
        ),
        lines(
            "Does it find more?",
            "mAP on the validation split after every epoch.",
            (_now("ray_xray_val_map50"), "mAP50"),
            (_now("ray_xray_val_map50_95"), "mAP50-95"),
            (_now("ray_xray_best_map50_95"), "best mAP50-95"),
            unit="percentunit",
            high_at_least=0.1,
        ),
        lines(
            "Precision and recall",
            "At the confidence with the best F1. Recall near 0 with rising precision: it finds almost nothing yet.",
            (_now("ray_xray_val_precision"), "precision"),
            (_now("ray_xray_val_recall"), "recall"),
            unit="percentunit",
            high=1,
        ),
        lines(
            "Loss within the epoch",
            "Mean since the epoch began, on every rank; ranks should agree.",
            (_now("ray_xray_step_loss", "rank"), "rank {{rank}}"),
        ),
        lines(
            "Learning rate",
            "Of the first parameter group.",
            (_now("ray_xray_learning_rate"), "lr"),
            unit="sci",
        ),
    ]
    fed = [
        lines(
            "Images per second",
            "Training speed of all ranks together, validation not counted.",
            (_now("ray_xray_images_per_second"), "all ranks"),
        ),
        lines(
            "Share of time waited for data",
            "Above 20 % the GPUs wait for the disk or for decoding: raise workers, or look at the node's disk.",
            (_now("ray_xray_data_wait_ratio", "rank"), "rank {{rank}}"),
            unit="percentunit",
            high=1,
            limits=[(None, "green"), (0.2, "orange"), (0.5, "red")],
        ),
        lines(
            "Where an epoch's time goes",
            "The whole epoch, its validation, and the slowest rank's wait for data.",
            (_now("ray_xray_epoch_seconds"), "epoch"),
            (_now("ray_xray_validation_seconds"), "validation"),
            (_now("ray_xray_data_wait_seconds"), "data wait"),
            unit="s",
        ),
        lines(
            "Steps done",
            "Batches since the run began. A rank that lies behind holds up all others; a flat line is a stall.",
            (_now("ray_xray_step", "rank"), "rank {{rank}}"),
        ),
        lines(
            "GPU memory by rank",
            "The most that tensors held. Close to the card's size: a larger batch will not fit.",
            (_now("ray_xray_gpu_memory_bytes", "rank"), "rank {{rank}}"),
            unit="bytes",
        ),
        lines(
            "Busy GPUs",
            "Utilization of every GPU of the cluster. Low while the run trains: see the share waited for data.",
            ("max by (ip, GpuIndex) (ray_node_gpus_utilization)", "{{ip}} GPU {{GpuIndex}}"),
            unit="percent",
            high=100,
        ),
    ]
    safe = [
        number(
            "Since the last stored checkpoint",
            "What would be lost if everything stopped now. Red after an hour.",
            f"time() - {_last('ray_xray_checkpoint_last_good_timestamp_seconds')}",
            "s",
            limits=[(None, "green"), (1800, "orange"), (3600, "red")],
        ),
        number(
            "Since the last step",
            "A run that trains and has made no step for ten minutes is stuck.",
            f"time() - {_last('ray_xray_last_step_timestamp_seconds')}",
            "s",
            limits=[(None, "green"), (300, "orange"), (600, "red")],
        ),
        number(
            "Ranks up",
            "Ranks that train at this moment; nothing where the run does not train.",
            'sum(max by (run, rank) (ray_xray_rank_up{run="$run"})) '
            'or 0 * max(ray_xray_run_stage{run="$run", stage="train"} == 1)',
            limits=[(None, "red"), (1, "green")],
        ),
        number("Ranks wanted", "What the run asked for, at most.", _last("ray_xray_world_size_wanted")),
        number(
            "Restarts",
            "Times that workers were lost or failed and were started again.",
            'round(sum(max_over_time(ray_xray_restarts_total{run="$run"}[$__range])))',
            limits=[(None, "green"), (1, "orange"), (3, "red")],
        ),
        number(
            "Records not sent",
            "What the tracking server has not confirmed. They are kept in the run's folder.",
            _last("ray_xray_tracking_spooled_records"),
            limits=[(None, "green"), (100, "orange"), (1000, "red")],
        ),
        lines(
            "Checkpoint time",
            "Upload until verified (in the background), and what writing it held training up.",
            (_now("ray_xray_checkpoint_upload_seconds"), "upload"),
            (_now("ray_xray_checkpoint_blocked_seconds"), "training held up"),
            unit="s",
        ),
        lines(
            "Epochs not yet stored",
            "Grows where storage is slower than training; the newest state is then stored as soon as there is room.",
            (_now("ray_xray_checkpoint_backlog_epochs"), "epochs"),
            (_now("ray_xray_checkpoint_failures"), "failed uploads"),
            limits=[(None, "green"), (3, "red")],
        ),
        lines("Checkpoint size", "Of the last one.", (_now("ray_xray_checkpoint_bytes"), "checkpoint"), unit="bytes"),
        lines(
            "Restarts by cause",
            "Since the run's driver began.",
            ('sum by (cause) (ray_xray_restarts_total{run="$run"}) > 0.5', "{{cause}}"),
        ),
        lines(
            "Ranks wanted and present",
            "Present below wanted: the run waits for nodes, or goes on with fewer.",
            (_now("ray_xray_world_size_wanted"), "wanted"),
            ('sum by (run) (max by (run, rank) (ray_xray_rank_up{run="$run"}))', "present"),
            (_now("ray_xray_world_size"), "in the last epoch"),
        ),
        lines(
            "Tracking",
            "Records that wait, and those that were sent late, after the server had failed.",
            (_now("ray_xray_tracking_spooled_records"), "waiting"),
            (_now("ray_xray_tracking_replayed_records"), "sent late"),
            (_now("ray_xray_tracking_sent_records"), "sent"),
        ),
    ]
    data = [
        number("Images", "In all splits of the data set.", _last("ray_xray_check_images")),
        number("Data check", "What checking every image and label took.", _last("ray_xray_check_seconds"), "s"),
        number(
            "Errors allowed",
            "Errors in the data that the settings allow.",
            'max(last_over_time(ray_xray_check_findings{run="$run", severity="error"}[$__range]))',
            limits=[(None, "green"), (1, "orange")],
        ),
        number(
            "Warnings",
            "Found by the data check; the run's log has them.",
            'max(last_over_time(ray_xray_check_findings{run="$run", severity="warning"}[$__range]))',
            limits=[(None, "green"), (1, "orange")],
        ),
        number(
            "Read from the pixel cache",
            "Share of the images that needed no decoding. Low after the first epoch: the node's disk is full.",
            f"sum({_last('ray_xray_cache_hits', 'rank')}) / "
            f"(sum({_last('ray_xray_cache_hits', 'rank')}) + sum({_last('ray_xray_cache_misses', 'rank')}))",
            "percentunit",
        ),
        number(
            "Copied to nodes",
            "Bytes of the data set that were fetched from a bucket for this run.",
            f"sum({_last('ray_xray_copied_bytes', 'node')})",
            "bytes",
        ),
    ]
    return board(
        "xray-training",
        "Training: is the run learning, is it fed, is it safe?",
        "One training run, from top to bottom.",
        run_variable("Run"),
        ("Where is it?", where),
        ("Is it learning?", learning),
        ("Is it fed?", fed),
        ("Is it safe?", safe),
        ("Its data", data),
    )
