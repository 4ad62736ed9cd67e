"""Read the names under which a server may be addressed, and compare them as browsers do."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)\.?(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host and, where one is given, a port: what the Host header holds."""

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_authority(text: str) -> Authority | None:
    """Parse `NAME`, `NAME:PORT` or `[ADDRESS]:PORT`. None if it is none of these."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    host = found["host"]
    try:
        host = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if host.startswith("["):
            return None
    port = int(found["port"]) if found["port"] else None
    return None if port is not None and port > 65535 else Authority(host, port)


def parse_allowed(text: str) -> list[Authority]:
    """Parse names that a person allows, separated by commas or spaces. Raises ValueError."""
    found = []
    for name in text.replace(",", " ").split():
        ascii_name = name
        with suppress(UnicodeError):
            ascii_name = name.encode("idna").decode()  # browsers send it in this form
        authority = parse_authority(ascii_name)
        if authority is None:
            raise ValueError(
                f"{name!r} is no host: give NAME or NAME:PORT, without https:// and without *"
            )
        found.append(authority)
    return found


def is_allowed(host: Authority, allowed: Iterable[Authority]) -> bool:
    """Whether the list holds this host. A name without a port in it stands for every port."""
    return any(
        entry.host == host.host
        and (
            entry.port in (None, host.port)
            or (host.port is None and entry.port in _DEFAULT_PORTS.values())
        )
        for entry in allowed
    )


def is_same_origin(origin: str, host: Authority) -> bool:
    """Whether a page of `origin` came from the server that is addressed as `host`.

    The scheme is left out: behind a proxy that ends TLS the server cannot know it.
    """
    scheme, _, rest = origin.partition("://")
    default, theirs = _DEFAULT_PORTS.get(scheme.lower()), parse_authority(rest)
    if default is None or theirs is None:
        return False
    return (theirs.host, theirs.port or default) == (host.host, host.port or default)
