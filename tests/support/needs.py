"""Tells from the code of a test what it starts: a server, a browser, processes, runs of Dagster;
and whether it renders videos or reads real ones.

A test needs what it names, what its fixtures name, and what the functions of the tests that these
call name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

TESTS = f"{Path(__file__).resolve().parents[1]}/"
NEEDS = {
    "s3_server": "server",
    "swift_server": "server",
    "SwiftServer": "server",
    "Postgres": "server",
    "ui_and_daemon": "server",
    "Webserver": "server",
    "browser_page": "browser",
    "sync_playwright": "browser",
    "render_sample": "video",
    "small_sample": "video",
    "subprocess": "process",
    "multiprocessing": "process",
    "FORKS": "process",
    "WorkerPool": "process",
    "ForkServer": "process",
    "run_stage": "process",
    "instance_for_test": "process",
    "open_instance": "process",
    "execute_in_process": "process",
    "execute_job": "process",
}
"""The marker of a test, by the name of what starts something."""
SERVERS = {"s3", "postgres"}
"""Parameters that ask for one."""


def shared_fixtures(item: pytest.Item) -> set[tuple[str, str]]:
    """Returns the fixtures that a test shares with others of its module: one of them pays."""
    fixtures = getattr(item, "_fixtureinfo", None)
    return {
        (definition.baseid, definition.argname)
        for definitions in (fixtures.name2fixturedefs.values() if fixtures else ())
        for definition in definitions
        if definition.scope == "module" and "::" not in definition.baseid
        if definition.baseid.endswith(item.path.name)
    }


def needs_of(item: pytest.Item) -> set[str]:
    """Returns the markers that a test gets for what it starts."""
    found = set(_of_function(item.function)) if isinstance(item, pytest.Function) else set()
    parameters = getattr(item, "callspec", None)
    if parameters and SERVERS & {str(value) for value in parameters.params.values()}:
        found.add("server")
    if "real_data" in getattr(item, "fixturenames", ()):
        found.add("video")
    fixtures = getattr(item, "_fixtureinfo", None)
    for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
        for definition in definitions:
            found |= _of_function(definition.func)
    return found


@cache
def _of_function(function: Callable[..., Any]) -> frozenset[str]:
    found: set[str] = set()
    seen: set[Any] = set()
    todo: list[Any] = [function]
    while todo:
        one = inspect.unwrap(todo.pop())
        code = getattr(one, "__code__", None)
        if one in seen or code is None or not _is_of_tests(code):
            continue
        seen.add(one)
        for name in _names(code):
            if name in NEEDS:
                found.add(NEEDS[name])
            named = one.__globals__.get(name)
            if inspect.isclass(named):
                todo.extend(m for m in vars(named).values() if inspect.isfunction(m))
            elif callable(named) and inspect.isfunction(inspect.unwrap(named)):
                todo.append(named)
    return frozenset(found)


def _is_of_tests(code: CodeType) -> bool:
    return code.co_filename.startswith(TESTS)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
