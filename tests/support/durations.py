"""Records what each test takes, in seconds of the clock and of the processor.

The record is `.pytest_cache/d/durations/tests.json`: {test: [seconds, CPU seconds]}. Processes that
the test started and waited for are counted. `conftest.py` imports the hooks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

SLOWEST = 10
Record = dict[str, list[float]]
_taken: Record = {}
_cpu_before = 0.0


def _cpu() -> float:
    return sum(os.times()[:4])


def record_file(config: pytest.Config) -> Path:
    return config.cache.mkdir("durations") / "tests.json"  # type: ignore[union-attr]


def read_record(config: pytest.Config) -> Record:
    try:
        return dict(json.loads(record_file(config).read_text()))
    except (OSError, ValueError):
        return {}


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
    record = read_record(config) | {k: [round(s, 3) for s in v] for k, v in _taken.items()}
    record_file(config).write_text(json.dumps(record, indent=0, sort_keys=True))
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
