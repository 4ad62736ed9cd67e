"""How many runs go on at a time follows from the machine, unless a person says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_project import home as home_module
from dagster_project import run_queue
from dagster_project.doctor import _run_queue, examine
from dagster_project.home import ROOT, limit_in, open_instance, prepare_home
from dagster_project.run_queue import runs_at_once
from resources.devices.gpu import Gpu
from resources.processes import RUN_TAG, machine, process_name
from sensors import lost_runs

GIB = 2**30
GPU = Gpu(0, "simulated", 80.0)
SICK = Gpu(1, "simulated", 80.0, fault="off the bus")


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAGSTER_HOME", "EGO_MAX_RUNS", "EGO_FAKE_GPUS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def have(
    monkeypatch: pytest.MonkeyPatch, cpus: int, memory_gib: int, gpus: list[Gpu] | None = None
) -> None:
    monkeypatch.setattr(machine, "cpus", lambda: cpus)
    monkeypatch.setattr(machine, "memory_bytes", lambda: memory_gib * GIB)
    monkeypatch.setattr(run_queue, "find_gpus", lambda: gpus or [])


@pytest.mark.parametrize(
    ("cpus", "memory_gib", "gpus", "runs", "why"),
    [
        (2, 24, [], 1, "for 2 CPUs"),
        (1, 1, [], 1, "for 1 CPU"),
        (32, 128, [], 8, "for 32 CPUs"),
        (32, 16, [], 3, "for 16 GiB of memory"),
        (32, 128, [GPU, GPU], 3, "for 2 GPUs"),
        (32, 128, [GPU, SICK], 2, "for 1 GPU"),
        (128, 512, [GPU] * 4, 5, "for 4 GPUs"),
        (2, 24, [GPU] * 4, 4, "for 2 CPUs"),
        (2, 12, [GPU] * 4, 2, "for 12 GiB of memory"),
    ],
)
def test_what_is_scarcest_sets_the_limit(
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    memory_gib: int,
    gpus: list[Gpu],
    runs: int,
    why: str,
) -> None:
    have(monkeypatch, cpus, memory_gib, gpus)
    found, words = runs_at_once()
    assert found == runs
    if cpus > 1:  # else memory is as scarce
        assert words == why


def test_a_person_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, 2, 24)
    monkeypatch.setenv("EGO_MAX_RUNS", "7")
    assert runs_at_once() == (7, "as EGO_MAX_RUNS says")
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("EGO_MAX_RUNS", wrong)
        with pytest.raises(ValueError, match="EGO_MAX_RUNS"):
            runs_at_once()


def limit(instance: dg.DagsterInstance) -> int:
    config = instance.get_concurrency_config().run_queue_config
    assert config is not None
    return config.max_concurrent_runs


def test_a_new_home_has_the_limit_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, 12, 64)
    with open_instance(tmp_path) as instance:
        assert limit(instance) == 3
        assert instance.telemetry_enabled is False
    have(monkeypatch, 2, 24)  # a home may move
    with open_instance(tmp_path) as instance:
        assert limit(instance) == 1


@dg.job
def toy() -> None:
    @dg.op
    def idle() -> None: ...

    idle()


def test_a_run_that_was_killed_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until somebody ends it, Dagster counts it: where there is one place, for ever."""
    have(monkeypatch, 2, 24)
    where, pid, began = process_name().rsplit(":", 2)
    names = [f"{where}:{pid}:{int(began) - 1}", process_name(), "elsewhere:1:1", ""]
    with open_instance(tmp_path) as instance:
        for name in names:
            run = instance.create_run_for_job(toy, status=dg.DagsterRunStatus.STARTED)
            instance.add_run_tags(run.run_id, {RUN_TAG: f"{run.run_id} {name}"})
        assert limit(instance) == 2
        begins = instance.create_run_for_job(toy, status=dg.DagsterRunStatus.STARTING)
        assert limit(instance) == 2
        monkeypatch.setattr(lost_runs, "START_LIMIT_S", -1.0)
        assert limit(instance) == 3
        instance.report_run_failed(begins)
        assert limit(instance) == 2


@pytest.mark.parametrize("text", [(ROOT / "dagster.yaml").read_text(), home_module._DEFAULT_CONFIG])
def test_what_is_shipped_is_safe_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Also for who runs `dagster dev` in the project's folder."""
    have(monkeypatch, 2, 24)
    (tmp_path / "dagster.yaml").write_text(text)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert limit(instance) == 1
    assert limit_in(tmp_path) is None


EARLIER = """# Copied into DAGSTER_HOME by `ego up` and `ego run` if there is none.
telemetry:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
run_retries:
  enabled: true
  max_retries: 0
"""
SHOWS_NO_WINDOW = """nux:  # no newsletter window in front of the graph
  enabled: false
"""
FROM_A_WHEEL = "telemetry:\n  enabled: false\n"


@pytest.mark.parametrize("text", [EARLIER, EARLIER + SHOWS_NO_WINDOW, FROM_A_WHEEL])
def test_a_file_of_an_earlier_release_is_brought_up_to_date(tmp_path: Path, text: str) -> None:
    home = tmp_path / ".dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(text)
    assert limit_in(home) is None
    prepare_home(tmp_path)
    assert (home / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
    assert [f.name for f in home.iterdir()] == ["dagster.yaml"]


def test_a_file_that_a_person_edited_is_left_alone_and_the_doctor_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, 2, 24)
    home = tmp_path / ".dagster"
    home.mkdir()
    old = (
        "run_coordinator:\n  module: dagster.core.run_coordinator\n  class: QueuedRunCoordinator\n"
    )
    (home / "dagster.yaml").write_text(old)
    prepare_home(tmp_path)
    assert (home / "dagster.yaml").read_text() == old
    monkeypatch.delenv("DAGSTER_HOME")
    (said,) = [f for f in examine(str(tmp_path)) if f.what == "runs at a time"]
    assert said.state == "warning"
    assert said.facts.startswith("10, as ")
    assert "this machine has room for 1 (for 2 CPUs)" in said.facts


@pytest.mark.parametrize(
    ("config", "runs"),
    [
        ({"concurrency": {"runs": {"max_concurrent_runs": 3}}}, 3),
        ({"run_queue": {"max_concurrent_runs": -1}}, -1),
        ({}, 10),
    ],
)
def test_the_doctor_reads_the_limit_where_dagster_does(
    tmp_path: Path, config: dict[str, object], runs: int
) -> None:
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    assert limit_in(tmp_path) == runs
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is None or queue.max_concurrent_runs == runs


LIMIT_IN_A_VARIABLE = "run_queue: {max_concurrent_runs: {env: EGO_TEST_RUNS}}"


def test_the_limit_may_be_in_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_TEST_RUNS", "4")
    (tmp_path / "dagster.yaml").write_text(LIMIT_IN_A_VARIABLE)
    assert limit_in(tmp_path) == 4
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert limit(instance) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LIMIT_IN_A_VARIABLE, "is the variable EGO_TEST_RUNS, which is not set"),
        ("run_queue: {max_concurrent_runs: {no: N}}", "max_concurrent_runs in .*a whole number"),
        ("run_queue: {max_concurrent_runs: many}", "is 'many': give a whole number"),
        ("run_queue: {max_concurrent_runs: true}", "is True: give a whole number"),
        ("run_queue: 3", "run_queue in .* is 3: Dagster needs names with values"),
        ("concurrency: [1]", "concurrency in "),
        ("concurrency: {runs: 1}", "runs of concurrency in "),
        ("run_coordinator: QueuedRunCoordinator", "run_coordinator in .* is 'QueuedRunCoordi"),
        ("run_coordinator: {config: 3}", "config of run_coordinator in "),
        ("- a list", r"dagster.yaml is \['a list'\]"),
        ("words", "dagster.yaml is 'words'"),
        ("a: b: c", "mapping values are not allowed"),
    ],
)
def test_the_doctor_says_what_is_wrong_with_an_edited_file(
    tmp_path: Path, text: str, words: str
) -> None:
    home = tmp_path / ".dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(text)
    said = _run_queue(str(tmp_path))
    assert said.state == "missing"
    assert re.search(words, said.facts)


def test_a_limit_in_the_file_beats_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, 2, 24)
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config["run_coordinator"]["config"] = {"max_concurrent_runs": 6}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert limit(instance) == 6
    assert limit_in(tmp_path) == 6
