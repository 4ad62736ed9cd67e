"""Errors are classed by what another try can do about them."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pyarrow.fs
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from ego_assets.engine import errors, outage
from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.engine.outage import Outage, StageBrokenError
from ego_assets.models.memory import DeviceMemoryError
from ego_assets.operator import BadInputError
from resources.lake.s3.client import make_client
from resources.lake.s3.storage import BucketAwayError
from resources.lake.table import ContractError
from resources.raw.reader import RawChangedError


def answer(status: int, code: str) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")  # type: ignore[arg-type]


OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})  # as torch has it


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadInputError("x"), ErrorKind.PERMANENT),
        (ContractError("x"), ErrorKind.PERMANENT),
        (RawChangedError("x"), ErrorKind.PERMANENT),
        (FileNotFoundError("x"), ErrorKind.PERMANENT),
        (PermissionError("x"), ErrorKind.PERMANENT),
        (answer(403, "AccessDenied"), ErrorKind.PERMANENT),
        (answer(404, "NoSuchKey"), ErrorKind.PERMANENT),
        (NoCredentialsError(), ErrorKind.PERMANENT),
        (answer(404, "NoSuchBucket"), ErrorKind.TRANSIENT),
        (OSError("When reading: AWS Error NO_SUCH_BUCKET during GetObject"), ErrorKind.TRANSIENT),
        (BucketAwayError("x"), ErrorKind.TRANSIENT),
        (answer(500, "InternalError"), ErrorKind.TRANSIENT),
        (answer(503, "SlowDown"), ErrorKind.TRANSIENT),
        (answer(429, "TooManyRequests"), ErrorKind.TRANSIENT),
        (EndpointConnectionError(endpoint_url="http://x"), ErrorKind.TRANSIENT),
        (ConnectionResetError("x"), ErrorKind.TRANSIENT),
        (OSError(errno.EHOSTUNREACH, "x"), ErrorKind.TRANSIENT),
        (socket.gaierror("x"), ErrorKind.TRANSIENT),
        (OSError(errno.ENOSPC, "x"), ErrorKind.NO_ROOM),
        (OSError(errno.EROFS, "x"), ErrorKind.NO_ROOM),
        (MemoryError(), ErrorKind.MEMORY),
        (OutOfMemoryError("CUDA out of memory"), ErrorKind.MEMORY),
        (DeviceMemoryError("x"), ErrorKind.DEVICE_MEMORY),
        (RuntimeError("x"), ErrorKind.OTHER),
        (OSError(errno.EIO, "x"), ErrorKind.OTHER),
    ],
)
def test_kinds(error: Exception, kind: ErrorKind) -> None:
    assert classify(error) is kind
    wrapped = RuntimeError("while at it")
    wrapped.__cause__ = error
    assert classify(wrapped) is kind


def nobody_there() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_server_that_is_away_is_no_fault_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = nobody_there()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = make_client()
    client.meta.config.retries["max_attempts"] = 1
    with pytest.raises(Exception, match="Could not connect") as by_boto:
        client.head_object(Bucket="b", Key="k")
    assert classify(by_boto.value) is ErrorKind.TRANSIENT
    strategy = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1)
    filesystem = pyarrow.fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", retry_strategy=strategy
    )
    with pytest.raises(OSError, match="NETWORK_CONNECTION") as by_arrow:
        filesystem.open_input_file("b/k")
    assert classify(by_arrow.value) is ErrorKind.TRANSIENT


def test_an_outage_charges_one_unit_and_then_ends_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(outage.time, "monotonic", lambda: now[0])
    away, error = Outage(), ConnectionError("gone")
    waits = []
    for _ in range(5):
        waits.append(away.goes_on(error))
        now[0] += outage.OUTAGE_S / 4
    assert waits == [True, True, True, True, False]
    assert away.goes_on(error)  # the next item has its own time
    now[0] += outage.OUTAGE_S
    with pytest.raises(StageBrokenError, match=r"gone: for 1200 s.*run again"):
        away.goes_on(error)


def test_figures_of_memory_name_what_there_is() -> None:
    words = errors.memory_figures()
    assert "peak of this worker" in words
    assert "free on the machine" in words
    assert errors.kernel_kills() >= 0
