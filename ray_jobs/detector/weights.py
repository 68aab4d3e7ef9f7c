"""Starting weights: found, downloaded or refused, and opened without executing what they hold.

In: a model name or a path. Out: the path of a weights file that was opened and is a YOLO detector, or a loaded model.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.detector.process import quiet_ultralytics
from ray_jobs.errors import WeightsError
from ray_jobs.settings import Settings

if TYPE_CHECKING:
    import torch


def resolve_weights(settings: Settings) -> Path | None:
    """The file that training starts from; None for ``pretrained: false``.

    Raises ``WeightsError`` where there is none or where it cannot be used.
    """
    if settings.pretrained is False:
        return None
    if settings.pretrained is True:
        path = download_yolo_weights(settings.model_name, Path(settings.weights_dir))
    else:
        path = Path(str(settings.pretrained)).expanduser()
        if not path.is_file():
            raise WeightsError(f"pretrained: {path}: no such file; give a path, true, or false to start from scratch")
    load_model(path)
    return path.resolve()


def download_yolo_weights(model_name: str, weights_dir: Path) -> Path:
    """Find ``<model_name>.pt`` in ``weights_dir``, the working directory or Ultralytics' own folder, else download it.

    Raises ``WeightsError`` where it is nowhere and cannot be downloaded.
    """
    name = f"{model_name}.pt"
    places = [weights_dir, Path(), *_ultralytics_folders()]
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    target = weights_dir / name
    if _download(target):
        return target
    looked = ", ".join(str(folder.resolve()) for folder in places)
    raise WeightsError(
        f"pretrained: {name} was not found in {looked}, and could not be downloaded; "
        f"put the file into {weights_dir}, or set pretrained: false to train from scratch"
    )


def load_model(path: Path) -> "torch.nn.Module":
    """Open a weights file as a YOLO detector in fp32 on the CPU, without executing code that it may hold.

    Raises ``WeightsError`` for a file that is missing, broken, unsafe, or no YOLO detection model.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
        what = "an HTML page, not weights; the download failed" if start.startswith(b"<") else "not a PyTorch file"
        raise WeightsError(f"{path}: is {what}; copy it again from its source")
    quiet_ultralytics()
    import torch
    from ultralytics.nn.tasks import DetectionModel, torch_safe_load

    try:
        checkpoint, _ = torch_safe_load(str(path.resolve()), safe_only=True)
    except Exception as error:  # each kind of damage comes out as another type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path}: cannot be opened safely as YOLO weights: {reason}") from None
    model: Any = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, DetectionModel):
        raise WeightsError(f"{path}: holds no YOLO detection model ({type(model).__name__})")
    if not all(torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point()):
        raise WeightsError(f"{path}: holds values that are not finite; the file is damaged")
    return model.float().eval()


def _ultralytics_folders() -> list[Path]:
    """Where Ultralytics' settings say it keeps weights, without importing it: that would make a settings file."""
    configured = os.environ.get("YOLO_CONFIG_DIR") or Path.home() / ".config" / "Ultralytics"
    try:
        folder = json.loads((Path(configured) / "settings.json").read_text())["weights_dir"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [Path(folder)]


def _download(target: Path) -> bool:
    """Let Ultralytics download one of its released files; False where that did not give a file."""
    quiet_ultralytics(offline=False)
    from ultralytics.utils.downloads import attempt_download_asset

    made = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        attempt_download_asset(str(target))
    except Exception:  # offline, refused, or cut: there is no file then, which is all that counts
        target.unlink(missing_ok=True)
    if made and not target.is_file():
        target.parent.rmdir()
    return target.is_file()
