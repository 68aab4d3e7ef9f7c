"""What reading X-rays tells Prometheus where it is a service on a Ray cluster: how many, how long, what was found."""

from ray_jobs import telemetry as t


class ReadingMeasures:
    """One process that reads. Neither an image's name nor a patient's is ever told."""

    def __init__(self, node: str) -> None:
        """``node``: its address, as Ray knows it."""
        self._meter = t.open_meter(node=node)
        for outcome in ("read", "refused"):
            self._meter.add(t.READS, 0, outcome=outcome)

    def read(self, seconds: float, findings: int) -> None:
        """An image was read in ``seconds``."""
        self._meter.add(t.READS, outcome="read")
        self._meter.add(t.READ_SECONDS, seconds)
        self._meter.add(t.READ_FINDINGS, findings)

    def refused(self) -> None:
        """What came was no image that can be read."""
        self._meter.add(t.READS, outcome="refused")
