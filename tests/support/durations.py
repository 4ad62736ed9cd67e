"""Records what each test takes, in seconds of the clock and of the processor.

A run writes `.pytest_cache/d/durations/tests.json`: {test: [seconds, CPU seconds]}. Processes that
the test started and waited for are counted. `make durations` takes what is long over into
`tests/durations.json`, which says which tests are slow and which files come first, also in a fresh
clone. `conftest.py` imports the hooks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

SLOWEST = 10
SLOW_S = 0.5
"""CPU seconds from which a test is marked as slow."""
KEPT = Path(__file__).resolve().parents[1] / "durations.json"
LATEST = KEPT.parents[1] / ".pytest_cache" / "d" / "durations" / "tests.json"
Record = dict[str, list[float]]
_taken: Record = {}
_cpu_before = 0.0


def _cpu() -> float:
    return sum(os.times()[:4])


def name_of(test: str) -> str:
    """Returns file::function of a test: without folders, which change, and parameters."""
    return test.partition("[")[0].rpartition("/")[2]


@cache
def known() -> dict[str, float]:
    """Returns CPU seconds of the longest tests, and seconds of the longest files, by name."""
    return dict(json.loads(KEPT.read_text()))


def keep() -> None:
    """Takes the latest record over into the project."""
    longest: dict[str, float] = {}
    files: dict[str, float] = {}
    for test, (seconds, cpu) in json.loads(LATEST.read_text()).items():
        name = name_of(test)
        file = name.partition("::")[0]
        longest[name] = max(longest.get(name, 0.0), cpu)
        files[file] = files.get(file, 0.0) + max(seconds, cpu)
    found = {n: s for n, s in known().items() if n not in longest | files} | longest | files
    kept = {name: round(s, 1) for name, s in sorted(found.items()) if s >= SLOW_S}
    KEPT.write_text(json.dumps(kept, indent=0) + "\n")


def _write(config: pytest.Config) -> None:
    if getattr(config, "cache", None) is None:  # -p no:cacheprovider
        return
    file = config.cache.mkdir("durations") / LATEST.name  # type: ignore[union-attr]
    record = json.loads(file.read_text()) if file.exists() else {}
    record |= {test: [round(s, 3) for s in taken] for test, taken in _taken.items()}
    file.write_text(json.dumps(record, indent=0, sort_keys=True))


def pytest_runtest_logstart() -> None:
    global _cpu_before
    _cpu_before = _cpu()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the CPU seconds of a phase to its report, which travels to the process that prints."""
    global _cpu_before
    report = yield
    now = _cpu()
    report.cpu_s = now - _cpu_before
    _cpu_before = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    of_test = _taken.setdefault(report.nodeid, [0.0, 0.0])
    of_test[0] += report.duration
    of_test[1] += getattr(report, "cpu_s", 0.0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Writes the record, and prints the tests and the files that took longest."""
    if len(_taken) < 2:
        return
    _write(config)
    files: Record = {}
    for test, (seconds, cpu) in _taken.items():
        of_file = files.setdefault(test.partition("::")[0], [0.0, 0.0])
        of_file[0] += seconds
        of_file[1] += cpu
    terminalreporter.section("slowest tests and files (seconds, CPU seconds)")
    for taken in (_taken, files):
        for name in sorted(taken, key=lambda n: taken[n][0], reverse=True)[:SLOWEST]:
            seconds, cpu = taken[name]
            terminalreporter.write_line(f"{seconds:8.1f} {cpu:8.1f}  {name}")
        terminalreporter.write_line("")
    seconds, cpu = (sum(s[i] for s in _taken.values()) for i in (0, 1))
    terminalreporter.write_line(f"{seconds:8.1f} {cpu:8.1f}  all {len(_taken)} tests together")


if __name__ == "__main__":
    keep()
