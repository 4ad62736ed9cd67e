"""The Dagster instance of a lake: where runs and events are kept, and what is erased there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import yaml

from dagster_project.executors.storages.sqlite_engines import keep_engines
from ego_assets.models.weights import cache_file
from resources.lake import LakeError
from resources.ledger.database import erase_words
from resources.processes import Life
from resources.processes.run_locks import RunLocks
from resources.words import ErasedWords, names_alone

ROOT = Path(__file__).resolve().parents[1]
_DEFAULT_CONFIG = """telemetry:
  enabled: false
run_coordinator:
  module: dagster_project.run_queue
  class: MachineRunCoordinator
nux:
  enabled: false
"""
_EARLIER = {
    "6f08751724c0137c3652abb499b48ba8657d10887aa0fa5935a50a5f3454234e",  # pragma: allowlist secret
    "1220c5da04ed076989b5fe5f46858286317b2b50e92dda7d43b33468b28e67e8",  # pragma: allowlist secret
    "3fae54066104e59d7b5f5d39db83e4c046072c5abecc88e66ad8d54325461c93",  # pragma: allowlist secret
    "f8805dc9e6f614c7063da7dcf3562d13a17819c1c5a14d3156d9974de6353777",  # pragma: allowlist secret
}
"""SHA-256 of the files that earlier releases have made: who never edited one gets the new one."""
DAGSTERS_LIMIT = 10
UNDER_WAY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_PICTURE = re.compile(r"data:image/[a-z+.-]+;base64,[A-Za-z0-9+/=]+")


def home_of(lake_root: str | Path) -> Path:
    """Return DAGSTER_HOME if it is set, else a folder in the lake.

    For a lake on S3 it is a folder of this machine: set DAGSTER_HOME where many work on it.
    """
    if given := os.environ.get("DAGSTER_HOME"):
        return Path(given).expanduser().resolve()  # Dagster takes no other
    if str(lake_root).startswith("s3://"):
        name = hashlib.sha256(str(lake_root).encode()).hexdigest()[:12]
        return Path(".ego/homes").resolve() / name
    return Path(lake_root) / ".dagster"


def prepare_home(lake_root: str | Path) -> Path:
    """Make the home of a lake, with a dagster.yaml of ours unless a person has one there."""
    home = home_of(lake_root)
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists() or _is_earlier(config):
        ours = ROOT / "dagster.yaml"
        aside = home / f"dagster.yaml.{os.getpid()}"
        aside.write_text(ours.read_text() if ours.exists() else _DEFAULT_CONFIG)
        aside.replace(config)
    home = _without_query(home)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _without_query(home: Path) -> Path:
    """A path to the folder that holds no `?`, which Dagster would take for the query of a URL.

    Where the folder's own path has one, it is a link in the user's cache. Raises LakeError if that
    has one, too, or cannot be written.
    """
    if "?" not in str(home):
        return home
    link = cache_file("homes") / hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    try:
        if "?" in str(link):
            raise OSError(f"{link} has a `?`, too")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() or link.readlink() != home:
            aside = link.with_suffix(f".{os.getpid()}")
            aside.symlink_to(home)
            aside.replace(link)
    except OSError as error:
        raise LakeError(
            f"Dagster cannot keep its runs in {home} because of the `?`, and no link to it can be "
            f"made ({error}): set DAGSTER_HOME to a folder whose path has no `?`"
        ) from error
    return link


def limit_in(home: Path) -> int | None:
    """Return how many runs at a time the home's dagster.yaml allows; None: as many as the machine
    has room for. Raises ValueError, also for what Dagster itself would refuse."""
    config = home / "dagster.yaml"
    if not config.exists() or _is_earlier(config):
        return None
    found = _mapping(yaml.safe_load(config.read_text()), f"{config}")
    coordinator = _mapping(found.get("run_coordinator"), f"run_coordinator in {config}")
    places = {
        "runs of concurrency": _mapping(found.get("concurrency"), f"concurrency in {config}").get(
            "runs"
        ),
        "config of run_coordinator": coordinator.get("config"),
        "run_queue": found.get("run_queue"),
    }
    for name, place in places.items():
        settings = _mapping(place, f"{name} in {config}")
        if "max_concurrent_runs" in settings:
            return _number(settings["max_concurrent_runs"], f"max_concurrent_runs in {config}")
    is_ours = coordinator.get("class") == "MachineRunCoordinator"
    return None if is_ours else DAGSTERS_LIMIT


def _mapping(given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{what} is {given!r:.100}: Dagster needs names with values there")
    return given


def _number(given: Any, what: str) -> int | None:
    """A number of runs, as Dagster reads it: it may be in a variable of the environment."""
    if isinstance(given, dict) and list(given) == ["env"]:
        name = str(given["env"])
        given, what = os.environ.get(name), f"{what} is the variable {name}, which"
        if given is None:
            raise ValueError(f"{what} is not set")
        with suppress(ValueError):
            given = int(given)
    if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
        raise ValueError(f"{what} is {given!r:.100}: give a whole number (-1: no limit)")
    return given


def open_instance(lake_root: str | Path) -> dg.DagsterInstance:
    """The instance in the lake's home. To be closed by the caller (it is a context manager)."""
    prepare_home(lake_root)
    keep_engines()
    return dg.DagsterInstance.get()


def _is_earlier(config: Path) -> bool:
    return hashlib.sha256(config.read_bytes()).hexdigest() in _EARLIER


def runs_under_way(instance: dg.DagsterInstance, shards: Collection[str]) -> dict[str, str]:
    """{run: shards, as a person reads it} of runs of these shards that have not ended; one whose
    process is surely gone has."""
    found, locks = {}, RunLocks(instance.root_directory)
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
        first = run.tags.get("dagster/partition") or run.tags.get(
            "dagster/asset_partition_range_start", ""
        )
        last = run.tags.get("dagster/asset_partition_range_end", first)
        is_gone = locks.life_of(run.run_id) is Life.GONE
        if first and any(first <= shard <= last for shard in shards) and not is_gone:
            found[run.run_id] = first if first == last else f"{first} to {last}"
    return found


def erase_in_home(
    instance: dg.DagsterInstance, words: Sequence[str], shards: Collection[str]
) -> list[str]:
    """Erase words from what Dagster keeps of runs (events, settings, logs of steps), names of files
    where they stand alone in what is of these shards, and pictures of shards that are inside of
    events. Returns sentences on what could not be erased."""
    everywhere, names = ErasedWords(words), names_alone(words)
    runs = [run.run_id for run in _runs_of(instance, shards)] if names.words else []

    def is_of_shards(table: sa.Table) -> sa.ColumnElement[bool]:
        texts = [c for c in table.columns if isinstance(c.type, sa.String)]
        of_run = [table.c.run_id.in_(runs)] if "run_id" in table.c else []
        return sa.or_(
            sa.false(), *of_run, *(c.contains(s, autoescape=True) for c in texts for s in shards)
        )

    problems = []
    for engine in _databases(instance):
        try:
            _drop_pictures(engine, shards)
            if names.words:
                erase_words(engine, names, ["forgotten", "uri"], is_of_shards)
            erase_words(engine, everywhere, ["forgotten", "uri"])
        except sa.exc.SQLAlchemyError as error:
            why = " ".join(str(getattr(error, "orig", None) or error).split())
            problems.append(
                f"Dagster's database {engine.url.render_as_string()} may still name it ({why}): "
                "stop what uses it, and forget again"
            )
        finally:
            engine.dispose()
    for path in Path(instance.root_directory).rglob("*"):
        if path.suffix in {".out", ".err", ".log", ".txt"} and path.is_file():
            before = path.read_bytes().decode(errors="surrogateescape")
            if (text := everywhere.replaced(before)) != before:
                aside = path.with_name(f"{path.name}.{os.getpid()}.aside")
                aside.write_bytes(text.encode(errors="surrogateescape"))
                shutil.copymode(path, aside)
                aside.replace(path)
    return problems


def _runs_of(instance: dg.DagsterInstance, shards: Collection[str]) -> Iterator[dg.DagsterRun]:
    """All runs of these shards, also of ranges that have them."""
    if not shards:
        return
    yield from instance.get_runs(dg.RunsFilter(tags={"dagster/partition": sorted(shards)}))
    start, end = (f"dagster/asset_partition_range_{which}" for which in ("start", "end"))
    for _, firsts in instance.get_run_tags(tag_keys=[start]):
        for run in instance.get_runs(dg.RunsFilter(tags={start: sorted(firsts)})):
            if any(run.tags[start] <= s <= run.tags.get(end, run.tags[start]) for s in shards):
                yield run


def _databases(instance: dg.DagsterInstance) -> Iterator[sa.Engine]:
    """All that the instance keeps things in: files of its home, and Postgres."""
    for path in sorted(Path(instance.root_directory).rglob("*.db")):
        url = sa.URL.create("sqlite", database=str(path))
        yield sa.create_engine(url, connect_args={"timeout": 60})
    storages = (instance.event_log_storage, instance.run_storage, instance.schedule_storage)
    for given in sorted({str(getattr(s, "postgres_url", "") or "") for s in storages} - {""}):
        yield sa.create_engine(given)


def _drop_pictures(engine: sa.Engine, shards: Collection[str]) -> None:
    """Take the pictures out of events that show these shards."""
    found = sa.MetaData()
    found.reflect(engine)
    with engine.begin() as connection:
        for table in found.tables.values():
            keys = list(table.primary_key.columns)
            texts = [c for c in table.columns if isinstance(c.type, sa.String)]
            for column in texts if len(keys) == 1 else ():
                shown = sa.or_(*(column.contains(s, autoescape=True) for s in shards))
                query = sa.select(keys[0], column).where(column.contains("data:image/"), shown)
                for key, text in connection.execute(query).all() if shards else ():
                    change = table.update().where(keys[0] == key)
                    connection.execute(change.values({column.name: _PICTURE.sub("", text)}))
