"""What a process must know before Ultralytics is imported in it: its place among the ranks, and peace from outside.

Ultralytics freezes RANK, LOCAL_RANK and WORLD_SIZE when it is imported and writes a settings file as it does so.
"""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A worker's place: ``device`` is ``cpu`` or ``cuda:N``; ``threads`` is the number of cores it computes with."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    threads: int = os.cpu_count() or 1


def prepare_process(place: Place) -> None:
    """Set the environment that Ultralytics reads on import. Call it before anything imports Ultralytics.

    With one worker the rank variables are removed: Ultralytics then trains as it does in any plain process.
    Raises ``RuntimeError`` where Ultralytics was imported before with another rank.
    """
    if place.world_size > 1:
        ranks = {"RANK": place.rank, "LOCAL_RANK": place.local_rank, "WORLD_SIZE": place.world_size}
        os.environ.update({name: str(value) for name, value in ranks.items()})
    else:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
    quiet_ultralytics()
    if "ultralytics.utils" in sys.modules:
        wanted = place.rank if place.world_size > 1 else -1
        if wanted != sys.modules["ultralytics.utils"].RANK:
            raise RuntimeError("Ultralytics was imported in this process before its rank was known")


def quiet_ultralytics(offline: bool = True) -> None:
    """Keep Ultralytics from installing packages, calling home, unpickling code, and writing into the user's home."""
    if offline:
        os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="xray-ultralytics-")  # each process its own: they would race on its file
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
