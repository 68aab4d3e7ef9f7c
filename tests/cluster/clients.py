"""What a person outside the containers does with an environment: its published ports, asked with and without keys."""

import base64
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from tests.cluster.engine import PROJECT, Environment

BUCKET = "xray-ray"
JOB = ("python", "-m", "ray_jobs.train", "--config", "/app/config/config.yaml", "--data", "/app/config/data.yaml")
STORAGE = f"storage.url=s3://{BUCKET}/checkpoints"


class Outside:
    """The published ports of one environment. ``digit`` stands before each of them."""

    def __init__(self, environment: Environment, digit: str) -> None:
        self.environment, self.digit = environment, digit
        self.token = environment.secrets["RAY_AUTH_TOKEN"]

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{self.digit}{port}"

    def status(
        self, port: int, path: str, *, body: object = None, authorization: str | None = None, host: str | None = None
    ) -> int:
        """The HTTP status of one request; ``host`` is the name that it asks for."""
        return _ask(self.url(port) + path, body, authorization, host=host)[0]

    def dashboard(self, path: str) -> dict:
        """An answer of the Ray dashboard, asked with the token."""
        return _json(*_ask(self.url(8265) + path, None, f"Bearer {self.token}"))

    def mlflow(self, call: str, body: object = None, method: str | None = None) -> dict:
        """An answer of MLflow's REST API, asked as its user."""
        credentials = f"xray:{self.environment.secrets['MLFLOW_PASSWORD']}".encode()
        url = f"{self.url(5000)}/api/2.0/mlflow{call}"
        return _json(*_ask(url, body, "Basic " + base64.b64encode(credentials).decode(), method))

    def finished_runs(self) -> list[dict]:
        """MLflow's finished runs, in every experiment."""
        experiments = self.mlflow("/experiments/search?max_results=100")["experiments"]
        ids = [experiment["experiment_id"] for experiment in experiments]
        runs = self.mlflow("/runs/search", {"experiment_ids": ids, "max_results": 100}).get("runs", [])
        return [run for run in runs if run["info"]["status"] == "FINISHED"]

    def artifacts(self, run: dict) -> set[str]:
        """Every file that the run logged."""
        files, folders = set(), [""]
        while folders:
            query = urllib.parse.urlencode({"run_id": run["info"]["run_id"], "path": folders.pop()})
            for entry in self.mlflow(f"/artifacts/list?{query}").get("files", []):
                if entry.get("is_dir"):
                    folders.append(entry["path"])
                else:
                    files.add(entry["path"])
        return files

    def prometheus(self, query: str, time: float | None = None) -> list[dict]:
        """The result vector of a query, now or at ``time`` (seconds since the epoch)."""
        parameters = {"query": query} | ({"time": str(time)} if time else {})
        return _json(*_ask(f"{self.url(9090)}/api/v1/query?{urllib.parse.urlencode(parameters)}", None, None))["data"][
            "result"
        ]

    def bucket(self, *, secret_key: str | None = None) -> object:
        """The bucket, opened with the restricted key that Ray and MLflow have."""
        return self._s3(BUCKET, secret_key or self.environment.secrets["S3_SECRET_KEY"]).Bucket(BUCKET)

    def objects(self) -> dict[str, int]:
        """The size of each object in the bucket, but for the one that the probe puts there for a moment."""
        return {each.key: each.size for each in self.bucket().objects.all() if not each.key.startswith("probe/")}

    def client(self, access_key: str, secret_key: str) -> object:
        """A client of the object store with another key."""
        return self._s3(access_key, secret_key).meta.client

    def _s3(self, access_key: str, secret_key: str) -> object:
        import boto3
        from botocore.config import Config

        return boto3.resource(
            "s3",
            endpoint_url=self.url(9000),
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}),
        )

    def trigger(self, path: str, body: object = None) -> tuple[int, dict]:
        """Status and answer of the trigger service, asked with its token."""
        token = self.environment.secrets["XRAY_TRIGGER_TOKEN"]
        status, answer = _ask(self.url(8090) + path, body, f"Bearer {token}")
        return status, json.loads(answer)

    def submit(self, *arguments: str, env_vars: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`ray job submit --working-dir .` of the training job, as the README has it."""
        runtime = ["--runtime-env-json", json.dumps({"env_vars": env_vars})] if env_vars else []
        ray = [f"{sys.prefix}/bin/ray", "job", "submit", "--address", self.url(8265), "--working-dir", "."]
        return subprocess.run(
            [*ray, *runtime, "--", *JOB, STORAGE, *arguments],
            cwd=PROJECT,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
        )


def answers(address: str, port: int) -> bool:
    """Whether anything accepts a connection there."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _ask(
    url: str, body: object, authorization: str | None, method: str | None = None, host: str | None = None
) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    if host:
        request.add_header("Host", host)
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def _json(status: int, body: bytes) -> dict:
    assert status == 200, f"{status}: {body[:500]!r}"
    return json.loads(body)
