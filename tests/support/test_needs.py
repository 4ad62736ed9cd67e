"""What a test starts is told from its code, its fixtures and what these call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.resources.s3_server import s3_server
from tests.support.durations import name_of
from tests.support.needs import needs_of, shared_fixtures


def _with_a_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as endpoint:
        yield endpoint


class Room:
    def open(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return list(_with_a_server(monkeypatch))


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture(scope="module")
def number() -> int:
    return 1


@pytest.mark.skip(reason="is only looked at")
def test_by_a_fixture(room: Room) -> None: ...


def test_the_markers_of_this_module(request: pytest.FixtureRequest, number: int) -> None:
    here = {i.name: i for i in request.session.items if i.path == request.path}
    if "test_by_a_fixture" in here:  # it was not asked for alone
        assert needs_of(here["test_by_a_fixture"]) == {"server", "process"}
        assert here["test_by_a_fixture"].get_closest_marker("server")
    assert needs_of(request.node) == set()
    assert {name for _, name in shared_fixtures(request.node)} == {"number"}


def test_folders_and_parameters_are_no_part_of_a_name() -> None:
    assert name_of("tests/a/test_b.py::test_c[x/y.mp4-1]") == "test_b.py::test_c"
