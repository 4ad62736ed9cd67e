"""Decides which addresses may be asked, and connects to no other.

A name is resolved here, each address judged, and the connection made to the address that was
judged: a name that leads elsewhere a moment later (DNS rebinding) changes nothing. Not here: HTTP.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ego_assets.intake.links.outcome import LinkError, RefusedError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")
"""Of IETF protocols; some releases of Python take a part of it for public."""
MAX_URL = 8192


def check_url(url: str, status: int | None = None) -> SplitResult:
    """The parts of a link. status: of the redirect that it came with. Raises RefusedError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedError("not a link that can be read", status) from None
    if parts.scheme not in ("http", "https"):
        raise RefusedError("neither http nor https", status)
    if not parts.hostname or port == 0:
        raise RefusedError("a link without a host", status)
    if "@" in parts.netloc:
        raise RefusedError("a link with a name or password in it: use a cookies file", status)
    if len(url) > MAX_URL or not url.isprintable() or " " in url:
        raise RefusedError("too long, or with blanks or control characters in it", status)
    return parts


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, for anybody to reach.

    An IPv6 address that stands for one of IPv4 (mapped, 6to4, Teredo, NAT64) is judged by that.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    elif found in _PROTOCOLS:
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def connect(host: str, port: int, timeout_s: float, *, allow_private: bool) -> socket.socket:
    """A connection to the first address of a host that may be asked and answers.

    Raises RefusedError if none may be asked, LinkError if the name is not known, OSError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # a name may also be too long, or no name at all
        raise LinkError("the name of its host is not known", may_help=True) from error
    allowed = [entry for entry in found if allow_private or is_public(str(entry[4][0]))]
    if not allowed:
        raise RefusedError("its host has a private address: --allow-private allows that")
    last: OSError | None = None
    for family, kind, protocol, _, where in allowed:
        try:
            return _connected(family, kind, protocol, where, timeout_s)
        except OSError as error:
            last = error
    assert last is not None
    raise last


def _connected(
    family: int, kind: int, protocol: int, where: Any, timeout_s: float
) -> socket.socket:
    found = socket.socket(family, kind, protocol)
    try:
        found.settimeout(timeout_s)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.connect(where)
    except BaseException:
        found.close()
        raise
    return found
