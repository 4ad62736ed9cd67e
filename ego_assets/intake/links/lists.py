"""Reads lists of links: text, CSV, JSON lines, Parquet.

A row that names a link is a link, however wrong the rest of it is: it is refused with the reason.
Not here: which addresses are allowed (`addresses`).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from ego_assets.consent import SAID
from ego_assets.intake.links.sidecars import fault_of
from resources.lake.storage import is_safe
from resources.raw.presence import VIDEO_SUFFIXES

COLUMNS = ("url", "sha256", "name", "source", *SAID)
_OTHERWISE = {"licence": "license", "link": "url"}
MOST_TEXT = 200
MOST_URL = 2000
"""Of a link, as it is kept."""
_SCHEMES = (
    ({"x-amz-signature"}, "x-amz-.*"),
    ({"x-goog-signature"}, "x-goog-.*"),
    ({"signature", "awsaccesskeyid"}, "awsaccesskeyid|expires|x-amz-security-token"),
    ({"signature", "googleaccessid"}, "googleaccessid|expires"),
    ({"signature", "key-pair-id"}, "key-pair-id|expires|policy"),  # CloudFront
    ({"sig", "sv"}, "s[eptvr]|spr|skoid|sktid|skt|ske|sks|skv"),  # Azure
    (set[str](), "sig|signature"),
)
"""Of signed links of object stores and CDNs: the parameters that they all have, and those that
change whenever a link is signed. Elsewhere a signature is a secret, too."""


DIFFERENT = "two rows of it say different things: leave one, or have both say the same"

SHARED = "another link of the list has the same name (but for the suffix): give it another one"


class ListError(ValueError):
    """A list that cannot be read; the message says which, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link, and what a list says of its video. fault: why it is not asked for.

    url: what is asked for; shown: the same without passwords and signatures, which is kept, and by
    which the link is known.
    """

    url: str
    shown: str
    id: str
    host: str
    name: str = ""
    sha256: str = ""
    source: str = ""
    beside: tuple[tuple[str, str], ...] = ()
    fault: str = ""


@dataclass
class LinkList:
    """Links, each once. resigned: rows of a link that is there with another signature or fragment;
    faults: rows without a link; notes: those rows, and columns that nobody knows."""

    links: dict[str, Link] = field(default_factory=dict)
    resigned: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], where: str) -> None:
        url = row.get("url")
        if not isinstance(url, str) or not url.strip():
            self.faults.append(f"{where}: no link")
            return
        link = make_link(url.strip(), row)
        if (first := self.links.get(link.id)) is None:
            self.links[link.id] = link
            return
        self.resigned += link.url != first.url
        if replace(link, url=first.url, fault=first.fault) != first:
            self.links[link.id] = replace(first, fault=DIFFERENT)
        elif link.fault and not first.fault:
            self.links[link.id] = replace(first, fault=link.fault)

    def refuse_shared_names(self) -> None:
        """Videos whose names differ in the suffix alone would share what lies beside them."""
        stems = Counter(stem_of_name(link.name) for link in self.links.values() if link.name)
        for link in list(self.links.values()):
            if stems[stem_of_name(link.name)] > 1 and not link.fault:
                self.links[link.id] = replace(link, fault=SHARED)


def read_links(given: Iterable[str]) -> LinkList:
    """The links that a person named: links, and files with lists of them. Raises ListError."""
    found = LinkList()
    for each in given:
        if "://" in each and not Path(each).exists():
            found.add({"url": each}, each)
            continue
        path = Path(each).expanduser()
        if not path.is_file():
            raise ListError(f"{each}: neither a link nor a file with a list of links")
        try:
            unknown = _read(path, found)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            why = getattr(error, "strerror", None) or error
            raise ListError(f"{each} cannot be read as a list of links: {why}") from error
        found.notes += [
            f"{each}: the column {name} is not known and not used (known: {', '.join(COLUMNS)})"
            for name in sorted(unknown)
        ]
    found.refuse_shared_names()
    if found.resigned:
        found.notes.append(
            f"{found.resigned:,} rows have a link that differs from that of another row in what "
            "signs it, or behind #: they are taken for the same, and the first is fetched"
        )
    return found


def _read(path: Path, into: LinkList) -> set[str]:
    """Read a file. Returns the columns that nobody knows."""
    readers = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    unknown: set[str] = set()
    for number, row in readers.get(path.suffix.lower(), _text)(path):
        where = f"{path.name}, row {number}"
        if isinstance(row, str):
            into.faults.append(f"{where}: {row}")
            continue
        named = {_column(name): value for name, value in row.items()}
        unknown |= named.keys() - set(COLUMNS)
        into.add(named, where)
    return unknown


def _column(name: object) -> str:
    text = str(name).strip().lower()
    return _OTHERWISE.get(text, text)[:100]


Rows = Iterator[tuple[int, Mapping[str, Any] | str]]
"""(number, columns), or in their place what is wrong with the row."""


def _text(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if (url := line.strip()) and not url.startswith("#"):
                yield number, {"url": url}


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if "url" not in map(_column, rows.fieldnames or ()):
            raise ListError(f"{path}: no column url in its first line")
        for number, row in enumerate(rows, 2):
            yield number, {k: v for k, v in row.items() if k is not None}


def _json_lines(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield number, row if isinstance(row, dict) else "no JSON object"


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if "url" not in map(_column, file.schema_arrow.names):
                raise ListError(f"{path}: no column url")
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise ListError(f"{path} cannot be read as Parquet") from error


def make_link(url: str, row: Mapping[str, Any]) -> Link:
    """A link of what a row says; with a fault, if something of that cannot be."""
    shown, faults = shown_url(url), []
    texts = {}
    for name in COLUMNS[1:]:
        value = row.get(name)
        text = "" if value is None else str(value).strip()
        if len(text) > MOST_TEXT or not text.isprintable():
            faults.append(f"its {name} is longer than {MOST_TEXT} characters, or not printable")
            text = ""
        texts[name] = text
    texts["sha256"] = texts["sha256"].lower()
    if texts["sha256"] and not re.fullmatch("[0-9a-f]{64}", texts["sha256"]):
        faults.append("its sha256 is not 64 hex digits")
        texts["sha256"] = ""
    name = texts["name"]
    if name and not (is_safe(name) and all(p[0] != "." for p in name.split("/"))):
        faults.append("its name is not a plain name of a file")
        texts["name"] = ""
    beside = {name: texts[name] for name in SAID if texts[name]}
    faults += fault_of(beside)
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        host = ""
    return Link(
        url=url,
        shown=shown[:MOST_URL],
        id=hashlib.sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()[:16],
        host=host,
        name=texts["name"],
        sha256=texts["sha256"],
        source=texts["source"] or host,
        beside=tuple(beside.items()),
        fault="; ".join(faults),
    )


def video_suffix(name: str) -> str:
    """The suffix of a name, if it is one of a video."""
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in VIDEO_SUFFIXES else ""


def stem_of_name(name: str) -> str:
    """A name without that."""
    return name.removesuffix(video_suffix(name))


def shown_url(url: str) -> str:
    """A link as it is kept: without name and password, fragment, and what signs it."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        names = {name.lower() for name, _ in query}
        signed = "|".join(signed for needed, signed in _SCHEMES if needed <= names)
        kept = [(name, value) for name, value in query if not re.fullmatch(signed, name.lower())]
        if len(kept) < len(query):
            parts = parts._replace(query=urlencode(kept))
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        return parts.geturl()
    except ValueError:
        return url
