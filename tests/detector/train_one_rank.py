"""A training process for ``test_trainer.py``: Ultralytics fixes a process's rank when it is imported.

python train_one_rank.py RANK WORLD_SIZE PORT INDEX.npz OUT [--resume FOLDER [--carried]] [--weights FILE] [--loaders N]
    key=value ...
Writes OUT/rank<R>.json, a list of what each epoch reported, and OUT/epoch_<N>/ with rank 0's checkpoints.
"""

import argparse
import json
from pathlib import Path

from ray_jobs.dataset.index import DatasetIndex
from ray_jobs.detector.process import Place, prepare_process
from ray_jobs.detector.training import train_detector
from ray_jobs.settings import load_config_with_defaults


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("rank", int), ("world_size", int), ("port", int), ("index", Path), ("out", Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--loaders", type=int, default=0)
    parser.add_argument("--carried", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    if options.world_size > 1:
        from torch import distributed as dist

        address = f"tcp://127.0.0.1:{options.port}"
        dist.init_process_group("gloo", init_method=address, rank=options.rank, world_size=options.world_size)
    settings = load_config_with_defaults(None, ["device=cpu", "workers=0", *options.overrides])
    place = Place(options.rank, 0, options.world_size, "cpu", 1)
    if options.loaders:
        use_loaders(options.loaders, place)
    said = []

    def report(epoch) -> None:
        said.append({"epoch": epoch.epoch, "digest": epoch.weights_digest, "last": epoch.last, **epoch.metrics})
        if epoch.capture_checkpoint:
            folder = options.out / f"epoch_{epoch.epoch}"
            folder.mkdir(parents=True)
            epoch.capture_checkpoint()(folder)

    train_detector(
        settings,
        DatasetIndex.load(options.index),
        place,
        options.out / f"work{options.rank}",
        report,
        batch_size=settings.batch_size,
        weights=options.weights,
        resume_from=options.resume,
        cache_folder=options.out / "cache",
        carried=options.carried,
        keep_weights=not options.carried,
    )
    (options.out / f"rank{options.rank}.json").write_text(json.dumps(said))


def use_loaders(count: int, place: Place) -> None:
    """Load images in so many processes, as on a GPU: on a CPU Ultralytics loads them in the training process."""
    prepare_process(place)
    from ray_jobs.detector.trainer import DetectorTraining

    plain = DetectorTraining.get_dataloader

    def get_dataloader(trainer, *arguments, **named):
        trainer.args.workers = count
        loader = plain(trainer, *arguments, **named)
        assert loader.num_workers == count
        return loader

    DetectorTraining.get_dataloader = get_dataloader


if __name__ == "__main__":
    main()
