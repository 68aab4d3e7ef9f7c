"""One promotion of a model at a time, although MLflow cannot compare and set an alias.

In: a model's name. Out: the turn to change its champion, held by one process of all that ask.

What MLflow's database does decide for everybody is who was first to make a registered model of a name. So the turn to
make change number n is the registered model ``NAME.promotion-n-1``: whoever makes it, has it. It is deleted when the
change is done and counted (tag ``champion_changes`` of NAME), and the next change has another name, so a latecomer who
asks for an old turn finds after getting it that it is over.

A process that dies holding its turn leaves it behind. After ``LEASE_S`` seconds the turn goes on as
``NAME.promotion-n-2``, and so on. What this cannot exclude: a process that is stopped for longer than the lease
exactly between its last look (``still_mine``) and the change of the alias, which are milliseconds apart.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import PlatformError
from ray_jobs.tracking.client import is_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHANGES_TAG = "champion_changes"
LEASE_S = 120.0
HOLDER_TAG = "holder"
_TRIES = 20


class TurnTaken(PlatformError):
    """Another process is changing the champion now."""


@dataclass(frozen=True)
class Turn:
    """The right to make the change number ``number`` of a model's champion."""

    client: "MlflowClient"
    model: str
    number: int
    attempt: int
    holder: str

    def still_mine(self) -> bool:
        """Whether nobody has taken the turn over. Look right before the change."""
        newest = max(_claims(self.client, self.model, self.number), key=lambda claim: claim[0], default=None)
        return newest is not None and newest[0] == self.attempt and newest[2] == self.holder

    def count(self) -> None:
        """Write down that the change was made."""
        self.client.set_registered_model_tag(self.model, CHANGES_TAG, str(self.number + 1))


@contextmanager
def take_turn(client: "MlflowClient", model: str, lease_s: float = LEASE_S) -> Iterator[Turn]:
    """Hold the turn to change the champion of ``model``. Raises ``TurnTaken`` while another process has it, and
    MLflow's errors."""
    turn = _claim(client, model, lease_s)
    try:
        yield turn
    finally:
        for attempt, name, _, _ in _claims(client, model, turn.number):
            if attempt <= turn.attempt:
                _delete(client, name)


def _claim(client: "MlflowClient", model: str, lease_s: float) -> Turn:
    holder = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    for _ in range(_TRIES):
        number = _changes(client, model)
        claims = _claims(client, model, number)
        attempt = max((claim[0] for claim in claims), default=0) + 1
        living = [claim for claim in claims if time.time() - claim[3] < lease_s]
        if living:
            raise TurnTaken(
                f"{model}: another promotion is under way ({living[-1][2].rpartition(' ')[0]}); try again in a moment"
            )
        name = f"{_prefix(model, number)}{attempt}"
        if not _make(client, name, holder):
            continue
        if _changes(client, model) == number:
            return Turn(client, model, number, attempt, holder)
        _delete(client, name)  # the turn was over when it was taken
    raise TurnTaken(f"{model}: too many promotions at once; try again in a moment")


def _prefix(model: str, number: int) -> str:
    return f"{model}.promotion-{number}-"


def _changes(client: "MlflowClient", model: str) -> int:
    return int(client.get_registered_model(model).tags.get(CHANGES_TAG, 0))


def _claims(client: "MlflowClient", model: str, number: int) -> list[tuple[int, str, str, float]]:
    """Attempt, name, holder and Unix time of every claim to a turn, oldest attempt first."""
    prefix = _prefix(model, number)
    found = client.search_registered_models(filter_string=f"name LIKE '{prefix}%'", max_results=100)
    claims = [
        (int(entry.name.removeprefix(prefix)), entry.name, _holder(entry), entry.creation_timestamp / 1000)
        for entry in found
        if entry.name.startswith(prefix) and entry.name.removeprefix(prefix).isdigit()
    ]
    return sorted(claims)


def _holder(entry: Any) -> str:
    return str(entry.tags.get(HOLDER_TAG, ""))


def _make(client: "MlflowClient", name: str, holder: str) -> bool:
    """True for the one process whose request makes the name."""
    from mlflow import MlflowException

    try:
        made = client.create_registered_model(
            name, tags={HOLDER_TAG: holder}, description="A promotion is under way; this goes when it is done."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return bool(made.name == name)


def _delete(client: "MlflowClient", name: str) -> None:
    try:
        client.delete_registered_model(name)
    except Exception as error:
        if not is_missing(error):
            raise
