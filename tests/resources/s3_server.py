"""An S3 server of the tests' own (moto): conditional writes, multipart; no persistence, no auth."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import requests

from resources.lake.s3.storage import S3Storage
from tests.resources.ports import free_port

_names = itertools.count()


START = """
import ctypes
ctypes.CDLL(None).prctl(1, 9)
from moto import backends
from moto.server import main
names = set(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: names
main()
"""
"""It ends with the process that started it, however that ends. It does not look for its services
in its folder for each request."""


@cache
def _running() -> str:
    """Starts a server that all tests of this process share, each with buckets of its own."""
    port = free_port()
    command = [sys.executable, "-c", START, "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            requests.get(endpoint, timeout=5)
            return endpoint
        except requests.ConnectionError:
            assert process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.1)


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The endpoint of a running server, which the usual variables name."""
    values = {
        "AWS_ENDPOINT_URL": _running(),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield values["AWS_ENDPOINT_URL"]


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
