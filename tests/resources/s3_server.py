"""An S3 server of the tests' own (moto): conditional writes, multipart; no persistence, no auth."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from resources.lake.s3 import S3Storage
from tests.resources.ports import free_port

_names = itertools.count()


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The endpoint of a running server, which the usual variables name."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(endpoint, timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)
        values = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        yield endpoint
    finally:
        process.kill()
        process.wait()


def s3_client() -> Any:
    """A client of the server that the variables name now: boto3's own session would remember the
    credentials of an earlier one."""
    import boto3

    return boto3.session.Session().client("s3")


def new_bucket() -> str:
    """Name of an empty bucket."""
    name = f"bucket{next(_names)}"
    s3_client().create_bucket(Bucket=name)
    return name


def most_inside(storage: S3Storage, threads: int) -> int:
    """How many of so many threads, each with a storage of its own, had one lock at a time."""
    inside = most = 0
    guard = threading.Lock()

    def enter() -> None:
        nonlocal inside, most
        with S3Storage(storage.location).lock("t"):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with guard:
                inside -= 1

    entering = [threading.Thread(target=enter) for _ in range(threads)]
    for thread in entering:
        thread.start()
    for thread in entering:
        thread.join(60)
    return most
