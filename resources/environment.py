"""What the environment says: each variable that is read has a function here, which parses it.

Nothing else of `resources` and `ego_assets` reads the environment (processes that are started have
theirs from `resources.processes`). An empty variable counts as one that is not set. Not here: the
check of all of them at the start (`ego_assets.environment`).
"""

from __future__ import annotations

import math
import os

BACKENDS_FILE = "EGO_BACKENDS"
DEGRADE_AFTER_S = "EGO_DEGRADE_AFTER_S"
LEASE = "EGO_LEASE"
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
MAX_DEGRADE_S = 30 * 86_400.0
_WITHOUT_GPU = "EGO_WITHOUT_GPU"


class EnvironmentVariableError(ValueError):
    """A variable holds what makes no sense. The message says which, what, and what is expected."""


def read_text(name: str) -> str:
    """What a variable holds; empty if it is not set."""
    return os.environ.get(name, "")


def read_number(
    name: str, default: float, low: float, high: float, *, what: str, whole: bool = False
) -> float:
    """The number that a variable holds, `default` if it is not set or empty.

    what: what the number is, for the message. Raises EnvironmentVariableError.
    """
    given = read_text(name).strip()
    if not given:
        return default
    try:
        value = int(given) if whole else float(given)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise EnvironmentVariableError(
            f"{name} is {given[:100]!r} and must be {kind} from {low:,.10g} to {high:,.10g}: {what}"
        )
    return value


# -- where things are ----------------------------------------------------------------------------


def lake_root() -> str:
    """EGO_LAKE: folder or s3:// location of the lake."""
    return read_text("EGO_LAKE")


def ledger_url() -> str:
    """EGO_LEDGER_URL: database of the ledger."""
    return read_text("EGO_LEDGER_URL")


def raw_folder() -> str:
    """EGO_RAW: folder or s3:// prefix of the raw videos."""
    return read_text("EGO_RAW")


def backends_file() -> str:
    """EGO_BACKENDS: file that says which backends this machine uses."""
    return read_text(BACKENDS_FILE)


def weights_folder() -> str:
    """EGO_WEIGHTS: folder of all weights."""
    return read_text("EGO_WEIGHTS")


def faces_must_be_blurred() -> bool:
    """EGO_FACES: whether exports may be made only with faces blurred. Raises
    EnvironmentVariableError."""
    given = read_text("EGO_FACES").strip() or "keep"
    if given not in ("keep", "blur"):
        raise EnvironmentVariableError(
            f"EGO_FACES is {given[:300]!r}: give blur (exports are made only with `--faces blur`) "
            "or keep (each export says for itself)"
        )
    return given == "blur"


def reviewer() -> str:
    """EGO_REVIEWER: who judges episodes and clips, unless a person says so at the page."""
    return read_text("EGO_REVIEWER").strip()


def cache_folder() -> str:
    """XDG_CACHE_HOME: where this user's programs keep what they could compute again."""
    return read_text("XDG_CACHE_HOME") or "~/.cache"


def scratch_folder() -> str:
    """EGO_SCRATCH: folder of copies of remote files."""
    return read_text("EGO_SCRATCH")


def lease_folder() -> str:
    """EGO_LEASE_DIR: folder in which the processes of this machine lease its devices."""
    return read_text("EGO_LEASE_DIR")


# -- how much, and how long ----------------------------------------------------------------------


def scratch_gigabytes() -> float:
    """EGO_SCRATCH_GB: how large the scratch space may be; 0: not said. Raises
    EnvironmentVariableError."""
    what = "how many gigabytes the copies of remote files may take"
    return read_number("EGO_SCRATCH_GB", 0.0, 0.001, 1e9, what=what)


def keep_count() -> int:
    """EGO_KEEP_VERSIONS: how many earlier versions of a shard's table are kept; 3 unless set.

    Raises EnvironmentVariableError.
    """
    what = "how many earlier versions of a shard's table are kept"
    return int(read_number("EGO_KEEP_VERSIONS", 3, 0, 10_000, whole=True, what=what))


def answer_timeout_s() -> float:
    """EGO_S3_TIMEOUT_S: how long a server may say nothing before it is asked again; 60 unless
    set. Raises EnvironmentVariableError."""
    what = "for how many seconds an S3 server may say nothing"
    return read_number("EGO_S3_TIMEOUT_S", 60.0, 0.1, 86_400, what=what)


# -- devices -------------------------------------------------------------------------------------


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES: what this process may see; None: all."""
    return os.environ.get(VISIBLE_DEVICES)


def leased_devices() -> tuple[str, ...]:
    """The devices that the executor gave to this step, as CUDA_VISIBLE_DEVICES names them."""
    named = (d.strip() for d in (visible_devices() or "").split(","))
    return tuple(d for d in named if d and d != "-1")


def lease() -> str:
    """Path of the lease that this process works under; empty: none."""
    return read_text(LEASE)


def simulated_gpus() -> int | None:
    """EGO_FAKE_GPUS: how many devices to simulate; None: those of NVML are used. Raises
    EnvironmentVariableError."""
    what = "how many devices to simulate"
    found = read_number("EGO_FAKE_GPUS", -1, 0, 1024, whole=True, what=what)
    return int(found) if found >= 0 else None


def degrade_after_s() -> float | None:
    """EGO_DEGRADE_AFTER_S: how long a step waits for a GPU before it goes on without one; None: for
    ever. Raises EnvironmentVariableError."""
    what = "give seconds that a step waits for a GPU, or nothing to let it wait"
    found = read_number(DEGRADE_AFTER_S, -1.0, 0, MAX_DEGRADE_S, what=what)
    return found if found >= 0 else None


def go_without_gpu(why: str) -> None:
    """From now on this process and its children see no GPU, and know why; "": they may see one."""
    if why:
        os.environ[_WITHOUT_GPU] = why
        os.environ[VISIBLE_DEVICES] = ""
    else:
        os.environ.pop(_WITHOUT_GPU, None)


def why_without_gpu() -> str:
    """Why this step runs without the GPU that it asked for; "": it does not."""
    return read_text(_WITHOUT_GPU)


# -- servers, and what is secret -----------------------------------------------------------------


def of_aws(name: str) -> str | None:
    """AWS_{name}, as the tools of AWS know it; None if it is not set."""
    return os.environ.get(f"AWS_{name}")


def alert_webhook_url() -> str:
    """EGO_ALERT_WEBHOOK_URL: where alerts are posted as JSON."""
    return read_text("EGO_ALERT_WEBHOOK_URL")


def alert_slack_url() -> str:
    """EGO_ALERT_SLACK_URL: where alerts are posted for Slack."""
    return read_text("EGO_ALERT_SLACK_URL")


def alert_smtp_password() -> str:
    """EGO_ALERT_SMTP_PASSWORD: of the mail server of alerts."""
    return read_text("EGO_ALERT_SMTP_PASSWORD")
