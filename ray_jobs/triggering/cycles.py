"""Which image was used by which fine-tuning: the ledger of the watch.

In: a batch of images, by the hash of their pixels. Out: a folder ``state/cycles/ID`` with the list that the job learns
from, written before the job is submitted, and how it ended. The ledger is these folders and nothing else, so nothing
can disagree with it.

A cycle is ``planned`` (written down; submitted, or about to be), then ``promoted``, ``refused`` or ``failed``. An image
starts a cycle only once: when it is new. It is learned for good when a champion has learned it; until then it comes
along in every later cycle, since that starts from the champion, who does not know it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from ray_jobs.dataset.description import DataDescription
from ray_jobs.triggering.queue import write_whole
from ray_jobs.triggering.ray_jobs_api import Order

State = Literal["planned", "waiting", "promoted", "refused", "failed"]
OPEN = frozenset({"planned", "waiting"})  # waiting: for the tracking server, so that the decision can be made


@dataclass(frozen=True)
class Cycle:
    """One fine-tuning on ``images`` (hashes of their pixels); ``new`` are those that started it."""

    id: str
    images: tuple[str, ...]
    new: tuple[str, ...]
    planned: float
    state: State = "planned"


class Ledger:
    """All cycles, in a folder."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "cycles"
        self._folder.mkdir(parents=True, exist_ok=True)

    def cycles(self) -> list[Cycle]:
        """Every cycle, the oldest first."""
        return sorted(self._read(), key=lambda cycle: cycle.planned)

    def used(self) -> frozenset[str]:
        """The images that have been in a cycle, however it ended."""
        return frozenset(image for cycle in self._read() for image in cycle.images)

    def learned(self) -> frozenset[str]:
        """The images that a champion has learned, or is learning right now."""
        return frozenset(
            image for cycle in self._read() if cycle.state in OPEN | {"promoted"} for image in cycle.images
        )

    def since(self) -> float:
        """Unix time at which this ledger was begun."""
        mark = self._folder / "begun"
        if not mark.exists():
            mark.touch()
        return mark.stat().st_mtime

    def plan(
        self,
        images: Mapping[str, Path],
        new: frozenset[str],
        description: DataDescription,
        make_order: Callable[[str, Path], Order],
        now: float,
    ) -> tuple[Cycle, Order]:
        """Write down a cycle on ``images`` (hash of the pixels to file) and the order that ``make_order`` makes for it,
        given its id and data.yaml. The id is made from the images: a service that died here makes the same one again.
        """
        hashes = sorted(images)
        past = len(self.cycles())
        digest = hashlib.sha256("\n".join([str(past), *hashes]).encode()).hexdigest()
        cycle = Cycle(f"finetune-{digest[:12]}", tuple(hashes), tuple(sorted(new)), now)
        folder = self._folder / cycle.id
        folder.mkdir(exist_ok=True)
        write_whole(folder / "train.txt", "".join(f"{images[one]}\n" for one in hashes))
        write_whole(folder / "data.yaml", _data_yaml(description))
        order = make_order(cycle.id, folder / "data.yaml")
        write_whole(folder / "order.json", order.to_json())
        self._write(cycle)  # last: a folder without it is no cycle
        return cycle, order

    def order(self, cycle: Cycle) -> Order:
        """How the cycle is submitted."""
        return Order.from_json((self._folder / cycle.id / "order.json").read_text(encoding="utf-8"))

    def close(self, cycle: Cycle, state: State) -> None:
        """Write down how a cycle ended."""
        self._write(replace(cycle, state=state))

    def _read(self) -> Iterator[Cycle]:
        for file in self._folder.glob("*/cycle.json"):
            values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            yield Cycle(**{**values, "images": tuple(values["images"]), "new": tuple(values["new"])})

    def _write(self, cycle: Cycle) -> None:
        write_whole(self._folder / cycle.id / "cycle.json", json.dumps(asdict(cycle)))


def _data_yaml(description: DataDescription) -> str:
    """The description's classes and held-out images, with the list of the cycle to learn from."""
    names = list(description.names)
    if description.dropped_class is not None:
        names.insert(description.dropped_class, "No finding")
    held_out = {
        split: [str(path) for path in sources] for split, sources in description.splits.items() if split != "train"
    }
    content = {"train": "train.txt", **held_out, "names": dict(enumerate(names))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def outcome_of(run: Path) -> State | None:
    """How a run ended, by its own folder; None where it has not, or did not get that far."""
    try:
        state = json.loads((run / "promotion.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError):
        return None
    return state if state in ("promoted", "refused", "waiting") else "refused"
