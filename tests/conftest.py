"""Fixtures that any test may use: the real data, and sample videos with exact truth."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import durations
from tests.support.durations import (  # noqa: F401  (hooks of pytest)
    pytest_runtest_logreport,
    pytest_runtest_logstart,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from tests.support.needs import needs_of, shared_fixtures

# Asserts that pytest has rewritten are worth keeping: to rewrite them all takes 20 s a process.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Threads of BLAS wait by spinning: small matrices would cost three times as much.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What collects and imports thousands of tests makes no garbage: `pytest_runtestloop`.
gc.disable()

# SQLite and the lake wait for the disk at every commit; memory makes nobody wait.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real videos and ground truth: EGO_REAL_DATA, else ../shared/real, else skip."""
    root = Path(__file__).resolve().parents[1]
    given = os.environ.get("EGO_REAL_DATA")
    folder = Path(given) if given else root.parent / "shared" / "real"
    if not (folder / "videos").is_dir():
        pytest.skip(f"no real data at {folder}: set EGO_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def packaged_weights() -> Path:
    """Folder of all weights, with those that are fetched by default, or skip: `make test` does."""
    from ego_assets.models.packaged.declaration import PACKAGED
    from ego_assets.models.weights import weights_root

    root = weights_root()
    wanted = [path for weights in PACKAGED.values() if weights.is_default for path in weights.paths]
    if not all((root / path).is_file() for path in wanted):
        pytest.skip(f"no weights below {root}: run `make weights`")
    return root


@pytest.fixture(scope="session")
def hand_nets() -> Path:
    """Folder of the hand nets, or skip: `make test` fetches them."""
    from ego_assets.models.packaged.declaration import HAND_NETS
    from ego_assets.models.weights import weights_root

    root = weights_root()
    if not all((root / path).is_file() for path in HAND_NETS.paths):
        pytest.skip(f"no hand nets below {root}: run `make weights`")
    return root / HAND_NETS.archive.folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by what they start and by what they took, and begins with the longest files.

    So no process is left alone with a long file at the end. Heavy tests are skipped, and the
    summary says so, unless EGO_HEAVY=1.
    """
    seconds = durations.known()
    slow = {i for i in items if seconds.get(durations.name_of(i.nodeid), 0.0) >= durations.SLOW_S}
    slow |= {i for i in items if i.get_closest_marker("slow")}
    paid = {fixture for item in slow for fixture in shared_fixtures(item)}
    for item in items:
        for marker in needs_of(item):
            item.add_marker(marker)
        if item in slow or shared_fixtures(item) & paid:
            item.add_marker("slow")
    items.sort(key=lambda item: -seconds.get(item.path.name, 0.0))
    if os.environ.get("EGO_HEAVY") == "1":
        return
    for item in items:
        if item.get_closest_marker("heavy"):
            item.add_marker(pytest.mark.skip(reason="heavy: EGO_HEAVY=1 runs it"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collections while tests run need not look at all the tests and modules again: half a second
    of CPU each."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _own_leases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests take no device of the machine's runs, and these none of theirs."""
    before = os.environ.get("EGO_LEASE_DIR")
    os.environ["EGO_LEASE_DIR"] = str(tmp_path_factory.mktemp("leases"))
    yield
    if before is None:
        del os.environ["EGO_LEASE_DIR"]
    else:
        os.environ["EGO_LEASE_DIR"] = before


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch with one thread: more cost more than they bring in tiny networks."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_instance_is_left() -> Iterator[None]:
    """Dagster keeps the last instance in a context variable, sometimes beyond its end; who then
    loads definitions in this process fails."""
    yield
    if base := sys.modules.get("dagster._core.storage.defs_state.base"):
        base._current_storage.set(None)


@contextmanager
def _without_home_of_others() -> Iterator[None]:
    """`open_instance` names the home of its lake in the environment: that of one test is not to be
    the home of the next one's processes."""
    before = os.environ.get("DAGSTER_HOME")
    yield
    if before is None:
        os.environ.pop("DAGSTER_HOME", None)
    else:
        os.environ["DAGSTER_HOME"] = before


@pytest.fixture(autouse=True, scope="module")
def _own_home_of_a_module() -> Iterator[None]:
    with _without_home_of_others():
        yield


@pytest.fixture(autouse=True)
def _own_home_of_a_test() -> Iterator[None]:
    with _without_home_of_others():
        yield
