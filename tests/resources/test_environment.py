"""What EGO_ variables hold is checked at the start, with a sentence that names them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ego_assets.environment import check_environment, fault_of_folder, shards_per_run
from resources.environment import (
    EnvironmentVariableError,
    answer_timeout_s,
    degrade_after_s,
    keep_count,
    scratch_gigabytes,
    simulated_gpus,
)
from resources.processes.temp_folder import MAX_TEMP_BYTES, TempFolderError, shorten_temp_folder
from resources.raw.scratch import Scratch, ScratchError

NUMBERS = {
    "EGO_KEEP_VERSIONS": (keep_count, 3, ["0", "10"], ["-1", "1.5", "10001"]),
    "EGO_S3_TIMEOUT_S": (answer_timeout_s, 60, ["0.5", "600"], ["0", "-1", "1e9"]),
    "EGO_SCRATCH_GB": (scratch_gigabytes, 0, ["0.5", "1000"], ["0", "-1"]),
    "EGO_FAKE_GPUS": (simulated_gpus, None, ["0", "4"], ["-1", "1.5", "1000000"]),
    "EGO_DEGRADE_AFTER_S": (degrade_after_s, None, ["0", "600"], ["-1", "1e12"]),
    "EGO_SHARDS_PER_RUN": (shards_per_run, 1, ["0", "4"], ["-1", "1.5"]),
}
NEVER = ["abc", "nan", "inf", "-inf", "1e400", "0x10", "3 shards", "9" * 5000]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_checked_where_it_is_read_and_at_the_start(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, default, right, wrong = NUMBERS[name]
    for given in ("", "  "):
        monkeypatch.setenv(name, given)
        assert read() == default
    for given in right:
        monkeypatch.setenv(name, given)
        assert read() == float(given)
        check_environment()
    for given in [*wrong, *NEVER]:
        monkeypatch.setenv(name, given)
        for ask in (read, check_environment):
            with pytest.raises(EnvironmentVariableError) as caught:
                ask()
            words = str(caught.value)
            assert words.startswith(f"{name} is '{given[:100]}")
            assert " number from " in words
            assert len(words) < 300


def test_no_number_is_read_anywhere_without_its_check() -> None:
    """A variable that is new is to be checked, too."""
    root = Path(__file__).resolve().parents[2]
    for package in ("ego_assets", "resources", "sensors", "dagster_project"):
        for path in (root / package).rglob("*.py"):
            for line in path.read_text().splitlines():
                is_number = "int(os.environ" in line or "float(os.environ" in line
                assert not is_number, f"{path}: {line.strip()}: use read_number"


@pytest.mark.parametrize(
    "name", ["EGO_LAKE", "EGO_SCRATCH", "EGO_WEIGHTS", "EGO_LEASE_DIR", "DAGSTER_HOME"]
)
def test_a_folder_may_not_be_there_yet_and_is_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for given in ("", "later/still"):
        monkeypatch.setenv(name, given and str(tmp_path / given))
        check_environment()
    for given in ("s3://bucket/prefix", "gs://b/x", "file:///data"):
        monkeypatch.setenv(name, given)
        if name == "EGO_LAKE" and given.startswith("s3://"):
            check_environment()
            continue
        with pytest.raises(EnvironmentVariableError, match=f"^{name} is '{given}', which is a URL"):
            check_environment()
    for given in ("file", "file/below", "loop", "x" * 300, "\udcff"):
        monkeypatch.setenv(name, str(tmp_path / given))
        with pytest.raises(EnvironmentVariableError, match=f"^{name} is .*give a folder$"):
            check_environment()


@pytest.mark.parametrize("given", ["/data/what?", "s3://b/what?", "/data/a %41#[b]"])
def test_a_path_is_no_url(given: str) -> None:
    assert fault_of_folder(given, may_be_on_s3=True) == ""


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("EGO_ALERT_WEBHOOK_URL", "hooks.example.org/S3CRET"),
        ("EGO_ALERT_SLACK_URL", "ftp://S3CRET"),
        ("EGO_ALERT_SLACK_URL", "https://[S3CRET"),
        ("EGO_LEDGER_URL", "mysql://me:S3CRET@host/db"),  # pragma: allowlist secret
        ("EGO_LEDGER_URL", "postgresql//me:S3CRET@host/db"),
        ("EGO_LEDGER_URL", "S3CRET"),
        ("EGO_LEDGER_URL", "sqlite:///"),
        ("EGO_LEDGER_URL", "sqlite:///:memory:"),
        ("EGO_LEDGER_URL", "sqlite:////tmp"),
    ],
)
def test_an_address_is_checked_and_not_shown(
    name: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, given)
    with pytest.raises(EnvironmentVariableError, match=f"^{name} holds no") as caught:
        check_environment()
    assert "S3CRET" not in str(caught.value)


def test_a_backends_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_BACKENDS", "/no/such/file.yaml")
    with pytest.raises(EnvironmentVariableError, match=r"^EGO_BACKENDS .*/no/such/file\.yaml"):
        check_environment()


def test_a_scratch_folder_that_cannot_be_made_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "file" / "below"))
    with pytest.raises(ScratchError, match="set EGO_SCRATCH"):
        Scratch.of_machine()


def test_without_utf8_a_code_location_says_so() -> None:
    """`ego` starts itself again with it; who starts Dagster otherwise has to set it."""
    command = [sys.executable, "-c", "from ego_assets.environment import *; check_environment()"]
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=os.environ | odd, capture_output=True, text=True)
    assert "EnvironmentVariableError: PYTHONUTF8 is '0', and names of files are " in done.stderr
    assert done.stderr.rstrip().endswith("set PYTHONUTF8 to 1")


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A temporary folder with a long path."""
    folder = tmp_path / ("t" * 100)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_long_temporary_folder_gets_a_short_name(temp: Path) -> None:
    for _ in range(2):
        shorten_temp_folder()
        short = tempfile.gettempdir()
        assert len(os.fsencode(short)) <= MAX_TEMP_BYTES
        assert os.environ["TMPDIR"] == short
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).resolve().parent == temp.resolve()
        os.environ["TMPDIR"], tempfile.tempdir = str(temp), None
    Path(short).unlink()


def test_a_short_one_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "tempdir", None)
    shorten_temp_folder()
    assert os.environ["TMPDIR"] == "/tmp"


def test_without_a_place_for_a_short_name_it_is_said(
    temp: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"ego-tmp-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"ego-tmp-{os.getuid()}").chmod(0o777)  # anybody may write there
    monkeypatch.setattr("resources.processes.temp_folder._SHORT_FOLDERS", (str(tmp_path), "/proc"))
    with pytest.raises(TempFolderError, match=r"^TMPDIR is .* set it to a folder"):
        shorten_temp_folder()
