"""Ask an actor that nobody holds on to for its process and how often it was asked; the first to ask makes it.

python counting_actor.py ADDRESS
"""

import os
import sys

import ray


@ray.remote(num_cpus=1)
class Counter:
    """Remembers, as long as it lives."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> tuple[int, int]:
        """Its process, and one more than the last time."""
        self.count += 1
        return os.getpid(), self.count


if __name__ == "__main__":
    ray.init(address=sys.argv[1], namespace="kept", logging_level="error")
    counter = Counter.options(name="counter", lifetime="detached", get_if_exists=True).remote()
    print("COUNTED", *ray.get(counter.next.remote(), timeout=120))
