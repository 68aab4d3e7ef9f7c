"""The peer: plain Ultralytics training in one process, as its documentation says, with the time of what it does.

    python benchmarks/plain_ultralytics.py DATA.yaml FOLDER SECONDS_SINCE_EPOCH [model=yolo12n] key=value ...

The last line of its output is JSON: seconds from the command to the first step and to the end, and each epoch's
images per second and seconds of validation. ``FOLDER`` takes all that it writes, but Ultralytics keeps its label cache
in the data set's own folder.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(data: str, folder: str, began: float, **arguments: object) -> None:
    """Train once."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    from ultralytics import YOLO, settings

    settings.update({"mlflow": False, "raytune": False, "tensorboard": False})  # it logs to whatever is installed
    marks: dict[str, float] = {}
    speeds: list[float] = []
    validations: list[float] = []

    def on_epoch_start(_trainer: object) -> None:
        marks["epoch"] = time.time()
        marks.setdefault("first_step", marks["epoch"] - began)

    def on_epoch_end(trainer: object) -> None:
        images = len(trainer.train_loader.dataset)  # type: ignore[attr-defined]
        marks["trained"] = time.time()
        speeds.append(images / (marks["trained"] - marks["epoch"]))

    def on_fit_epoch_end(_trainer: object) -> None:
        if "trained" in marks:  # it is called once more after the last validation of all
            validations.append(time.time() - marks.pop("trained"))

    model = YOLO(f"{arguments.pop('model', 'yolo12n')}.yaml")
    model.add_callback("on_train_epoch_start", on_epoch_start)
    model.add_callback("on_train_epoch_end", on_epoch_end)
    model.add_callback("on_fit_epoch_end", on_fit_epoch_end)
    results = model.train(data=data, project=folder, name="run", pretrained=False, verbose=False, **arguments)
    total = time.time() - began
    figures = {
        "first_step": marks["first_step"],
        "total": total,
        "images_per_second": speeds,
        "val_seconds": validations,
    }
    print(json.dumps({**figures, "map50": results.box.map50, "map50_95": results.box.map}))


if __name__ == "__main__":
    import yaml

    pairs = (text.split("=", 1) for text in sys.argv[4:])
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), **{key: yaml.safe_load(value) for key, value in pairs})
