"""Health check of a container: every URL given answers 200, or the exit code is 1 and the first failure is printed.

Runs every few seconds, so it uses the standard library alone. The MLflow server wants a name and a password for its
API: they are taken from the variables that it was itself started with.
"""

import base64
import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def failure(url: str) -> str | None:
    """What is wrong with ``url``, or None where it answers 200."""
    request = urllib.request.Request(url)
    if user := os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME"):
        credentials = f"{user}:{os.environ.get('MLFLOW_AUTH_ADMIN_PASSWORD', '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"{url}: answered {error.code}"
    except OSError as error:
        return f"{url}: {error}"


def main(urls: list[str]) -> int:
    """Check the URLs in order; stop at the first that fails."""
    if problem := next(filter(None, map(failure, urls)), None):
        print(problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
