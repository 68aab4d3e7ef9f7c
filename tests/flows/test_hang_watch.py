"""A worker whose training stands still ends itself, and one that may take its time does not."""

import subprocess
import sys

from ray_jobs.flows.hang_watch import EXIT_CODE

CODE = """
import time
from ray_jobs.flows.hang_watch import HangWatch
watch = HangWatch({timeout})
for _ in range(3):
    watch.beat()
    time.sleep(0.2)
{then}
time.sleep(4)
print("alive")
"""


def run(timeout: float, then: str) -> subprocess.CompletedProcess[str]:
    code = CODE.format(timeout=timeout, then=then)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_no_progress_ends_the_process_and_says_where_it_stood() -> None:
    done = run(1.0, "")
    assert done.returncode == EXIT_CODE
    assert "no batch for " in done.stderr
    assert 'File "<string>", line 9 in <module>' in done.stderr


def test_a_pause_and_no_limit_are_respected() -> None:
    assert run(1.0, "watch.pause()").stdout == "alive\n"
    assert run(0.0, "").stdout == "alive\n"
