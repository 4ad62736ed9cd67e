"""What an error says of a work item: its own fault, nobody's, or the machine's.

Here: the classes, and the words that go into the ledger. Not here: what follows from them
(`worker`, `runner`).
"""

from __future__ import annotations

import errno
import resource
import socket
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from ego_assets.models.memory import DeviceMemoryError, is_out_of_memory
from ego_assets.models.weights import WeightsError
from ego_assets.operator import BadInputError
from resources.lake.table import ContractError
from resources.raw.plain_files import NotAFileError
from resources.raw.presence import RawAwayError, RawRefusedError, RawUnreadError
from resources.raw.reader import RawChangedError

OUT_OF_MEMORY = "oom"
"""The ledger's error class of an item for which there was not enough."""


class ErrorKind(StrEnum):
    """permanent: another try cannot help. transient: the network, a server or the place of a raw
    file is away, or busy: it counts against no clip. no_room: nothing can be written here.
    no_weights: a model cannot be loaded, for no clip. memory: it may help to have more of it.
    device_memory: smaller batches have been tried, and did not help. other: tried again, some
    times."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    NO_ROOM = "no room"
    NO_WEIGHTS = "no weights"
    MEMORY = "out of memory"
    DEVICE_MEMORY = "out of device memory"
    OTHER = "other"


class PublishRefusedError(RuntimeError):
    """The lake does not take what an item came to: it is not there, or it is not permitted."""


_PERMANENT = (
    BadInputError,
    NotAFileError,
    ContractError,
    RawChangedError,
    RawRefusedError,
    FileNotFoundError,
    PermissionError,
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NETWORK = frozenset(
    [
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ETIMEDOUT,
        errno.EPIPE,
        errno.ESTALE,  # a network file system whose server came back
    ]
)
_AWAY = (RawAwayError, ConnectionError, socket.gaierror)
_ARROWS_AWAY = ("NETWORK_CONNECTION", "SLOW_DOWN", "NO_SUCH_BUCKET")
_BUSY = (408, 409, 425, 429)


def classify(error: BaseException) -> ErrorKind:
    """The kind of an error; one that says nothing is of its cause's kind."""
    seen: BaseException | None = error
    while seen is not None:
        kind = _own_kind(seen)
        if kind is not ErrorKind.OTHER:
            return kind
        seen = seen.__cause__
    return ErrorKind.OTHER


def _own_kind(error: BaseException) -> ErrorKind:
    module = type(error).__module__.partition(".")[0]
    if module in {"botocore", "boto3", "s3transfer", "urllib3"}:
        return _kind_of_s3(error)
    if isinstance(error, _PERMANENT):
        return ErrorKind.PERMANENT
    if isinstance(error, PublishRefusedError):
        return ErrorKind.NO_ROOM
    if isinstance(error, WeightsError):
        return ErrorKind.NO_WEIGHTS
    if isinstance(error, DeviceMemoryError):
        return ErrorKind.DEVICE_MEMORY
    if is_out_of_memory(error):
        return ErrorKind.MEMORY
    if isinstance(error, OSError) and not isinstance(error, RawUnreadError):
        if error.errno in _NO_ROOM:
            return ErrorKind.NO_ROOM
        if error.errno in _NETWORK or isinstance(error, _AWAY):
            return ErrorKind.TRANSIENT
        # Arrow's S3 client says in words only what went wrong.
        if any(f"AWS Error {code}" in str(error) for code in _ARROWS_AWAY):
            return ErrorKind.TRANSIENT
        if "AWS Error ACCESS_DENIED" in str(error):
            return ErrorKind.PERMANENT
    return ErrorKind.OTHER


def _kind_of_s3(error: BaseException) -> ErrorKind:
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status is None:
        # No answer at all: connections refused, cut, timed out. What the settings lack
        # (NoCredentialsError, ParamValidationError, …) no waiting brings.
        names = {c.__name__ for c in type(error).__mro__}
        lost = {"HTTPClientError", "ConnectionError", "IncompleteReadError", "HTTPError"}
        return ErrorKind.TRANSIENT if names & lost else ErrorKind.PERMANENT
    # A server that is coming back may not know its buckets yet.
    is_away = answer.get("Error", {}).get("Code") == "NoSuchBucket"
    if is_away or status >= 500 or status in _BUSY:
        return ErrorKind.TRANSIENT
    return ErrorKind.PERMANENT


def memory_figures() -> str:
    """What this process took at its peak, and what there was to take."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = psutil.virtual_memory()
    words = [
        f"peak of this worker {peak / 2**20:.0f} MiB",
        f"free on the machine {found.available / 2**20:.0f} of {found.total / 2**20:.0f} MiB",
    ]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        words.append(f"address space limited to {soft / 2**20:.0f} MiB")
    if (limit := _cgroup("memory.max")) is not None:
        words.append(f"this container's limit {limit / 2**20:.0f} MiB")
    return ", ".join(words)


def kernel_kills() -> int:
    """How often the kernel has killed for want of memory in this container, or on this machine."""
    with suppress(OSError, ValueError, StopIteration):
        lines = _cgroup_path("memory.events").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("oom_kill ")).split()[1])
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("oom_kill ")).split()[1])
    return 0


def _cgroup(name: str) -> int | None:
    with suppress(OSError, ValueError):
        return int(_cgroup_path(name).read_text())
    return None


def _cgroup_path(name: str) -> Path:
    """A file of this process' control group (version 2)."""
    own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
    return Path("/sys/fs/cgroup") / own.lstrip("/") / name
