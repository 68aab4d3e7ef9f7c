"""The champion of a registered model: who it is, how it changes, and how it goes back.

In: a decision about a version, in words. Out: the alias moved, or not, and the reason on the version's page.
Every change is made by whoever has the turn (``turns``), and only where the champion still is the one that the decision
was made about.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import BadInput, PlatformError, TrackingError
from ray_jobs.tracking.addresses import redact
from ray_jobs.tracking.client import cause, connect, is_missing
from ray_jobs.tracking.registered_model import ModelAddress, ModelVersion, look_up
from ray_jobs.tracking.turns import LEASE_S, TurnTaken, take_turn

if TYPE_CHECKING:
    from mlflow import MlflowClient

HISTORY_TAG = "champion_history"
BEFORE_TAG = "champion_before"
STATE_TAG = "promotion"
REASON_TAG = "promotion_reason"
COMPARED_TAG = "promotion_compared_with"
TIME_TAG = "promotion_time"
NUMBERS_TAG = "promotion_numbers"
HEADING = "## Promotion"
HISTORY_LENGTH = 50
MOST_TEXT = 4900  # characters; MLflow's columns for tags and descriptions hold 5000
MOST_REASON = 300  # characters of a reason in the history


class ChampionChanged(PlatformError):
    """The champion is no longer the one that the decision was made about; compare again."""


@dataclass(frozen=True)
class Verdict:
    """A decision about ``version``, made against ``champion`` (None: there was none)."""

    version: ModelVersion
    champion: ModelVersion | None
    promote: bool
    reasons: Sequence[str]
    numbers: dict[str, Any]


class Registry:
    """The champion of one registered model. Methods raise ``TrackingError`` where the server fails."""

    def __init__(self, uri: str, name: str, champion: str = "champion", lease_s: float = LEASE_S) -> None:
        """``champion`` is the alias; ``lease_s`` how long a turn lasts whose holder is not heard of."""
        self.uri, self.name, self.alias = uri, name, champion
        self._lease_s = lease_s
        self._client: MlflowClient | None = None

    def champion(self) -> ModelVersion | None:
        """The version with the alias; None where there is none."""
        return self._asked(self._champion)

    def version(self, version: str) -> ModelVersion:
        """A version by its number, or ``@ALIAS``. Raises ``BadInput`` where there is none."""
        alias, number = (version[1:], None) if version.startswith("@") else (None, version)
        address = ModelAddress(self.name, alias, number)
        found = self._asked(lambda: self._look_up(address))
        if found is None:
            raise BadInput(f"{address}: no such version at {redact(self.uri)}")
        return found

    def carry_out(self, verdict: Verdict) -> None:
        """Move the alias where the verdict says so, and write down what was decided and why.

        Raises ``ChampionChanged`` where the decision is out of date (nothing is written then), ``TurnTaken`` while
        another process decides.
        """
        self._asked(lambda: self._carry_out(verdict))

    def roll_back(self, reason: str = "rolled back by hand") -> tuple[ModelVersion, ModelVersion]:
        """Make the champion before this one the champion again; returns the one that left and the one that is back.

        Raises ``BadInput`` where there is none to go back to.
        """
        return self._asked(lambda: self._roll_back(reason))

    def history(self) -> list[dict[str, Any]]:
        """Every change of the champion, oldest first: time, action, from, to, reason."""
        return self._asked(self._history)

    def _carry_out(self, verdict: Verdict) -> None:
        if not verdict.promote:
            self._write_down(verdict, "refused")
            return
        client, version = self._connected(), verdict.version
        with take_turn(client, self.name, self._lease_s) as turn:
            now = self._champion()
            if _number(now) != _number(verdict.champion):
                raise ChampionChanged(
                    f"{self.name}: the champion is {_named(now)} now, and {version} was compared with "
                    f"{_named(verdict.champion)}; compare again"
                )
            # What is needed to go back is written before the alias moves.
            client.set_model_version_tag(self.name, version.version, BEFORE_TAG, _number(now) or "")
            if not turn.still_mine():
                raise TurnTaken(f"{self.name}: this promotion took too long, another one has gone on; try again")
            client.set_registered_model_alias(self.name, self.alias, version.version)
            self._remember("promoted", now, version, "; ".join(verdict.reasons))
            turn.count()
        self._write_down(verdict, "promoted")

    def _roll_back(self, reason: str) -> tuple[ModelVersion, ModelVersion]:
        client = self._connected()
        with take_turn(client, self.name, self._lease_s) as turn:
            now = self._champion()
            if now is None:
                raise BadInput(f"{self.name}: has no {self.alias}, so there is nothing to roll back")
            before = now.tags.get(BEFORE_TAG)
            if not before:
                raise BadInput(f"{now}: is the first {self.alias}, there is none before it to go back to")
            back = self._look_up(ModelAddress(self.name, version=before))
            if back is None:
                raise BadInput(f"{self.name} version {before}: was deleted, so nothing can go back to it")
            if not turn.still_mine():
                raise TurnTaken(f"{self.name}: this took too long, a promotion has gone on; try again")
            client.set_registered_model_alias(self.name, self.alias, back.version)
            self._remember("rolled back", now, back, reason)
            turn.count()
        self._tag(now.version, {STATE_TAG: "rolled back", REASON_TAG: reason, TIME_TAG: _now()})
        return now, back

    def _write_down(self, verdict: Verdict, state: str) -> None:
        version, reasons = verdict.version, [redact(reason) for reason in verdict.reasons]
        tags = {
            STATE_TAG: state,
            REASON_TAG: "; ".join(reasons),
            COMPARED_TAG: _number(verdict.champion) or "none",
            TIME_TAG: _now(),
            NUMBERS_TAG: json.dumps(verdict.numbers),
        }
        self._tag(version.version, tags)
        against = (
            f"compared with version {verdict.champion.version}" if verdict.champion else "without a champion before"
        )
        lines = "\n".join(f"- {reason}" for reason in reasons)
        decision = f"{HEADING}\n\n{state.capitalize()} on {_now()}, {against}:\n\n{lines}"
        decision = _shortened(decision, MOST_TEXT // 2)
        text = version.description.partition(f"\n{HEADING}")[0].rstrip()
        text = f"{_shortened(text, MOST_TEXT - len(decision) - 3)}\n\n{decision}\n"
        self._connected().update_model_version(self.name, version.version, text)

    def _tag(self, version: str, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self._connected().set_model_version_tag(self.name, version, key, _shortened(value, MOST_TEXT))

    def _remember(self, action: str, before: ModelVersion | None, after: ModelVersion, reason: str) -> None:
        entry = {
            "time": _now(),
            "action": action,
            "from": _number(before),
            "to": after.version,
            "reason": _shortened(redact(reason), MOST_REASON),
        }
        entries = [*self._history(), entry][-HISTORY_LENGTH:]
        while len(json.dumps(entries)) > MOST_TEXT:
            del entries[0]
        self._connected().set_registered_model_tag(self.name, HISTORY_TAG, json.dumps(entries))

    def _history(self) -> list[dict[str, Any]]:
        entries = json.loads(self._connected().get_registered_model(self.name).tags.get(HISTORY_TAG, "[]"))
        return list(entries)

    def _champion(self) -> ModelVersion | None:
        return self._look_up(ModelAddress(self.name, self.alias))

    def _look_up(self, address: ModelAddress) -> ModelVersion | None:
        try:
            return look_up(self._connected(), address)
        except Exception as error:
            if is_missing(error) or getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
                return None  # MLflow answers so for an alias that was never set
            raise

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except PlatformError:
            raise
        except Exception as error:  # MLflow, requests, urllib3 and SQLAlchemy errors share no ancestor but this
            if is_missing(error):
                raise BadInput(f"{self.name}: no such registered model at {redact(self.uri)}") from None
            raise TrackingError(f"{self.name}: {redact(self.uri)} fails: {cause(error)}") from error


def _number(version: ModelVersion | None) -> str | None:
    return version.version if version else None


def _named(version: ModelVersion | None) -> str:
    return f"version {version.version}" if version else "none"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
