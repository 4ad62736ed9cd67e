"""Which addresses may be asked, and that a connection is made to the address that was judged."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ego_assets.intake.links.addresses import check_url, connect, is_public
from ego_assets.intake.links.outcome import LinkError, RefusedError


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f::1", "64:ff9b::5db8:d70e"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2001:db8::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:1::80ff:fffe"),
        *("", "localhost", "127.1", "0x7f000001"),
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("//example.org/a", "neither http nor https"),
        ("HTTP://", "without a host"),
        ("http://example.org:99999/", "can be read"),
        ("http://example.org:0/", "without a host"),
        ("http://a:b@example.org/", "password"),
        ("http://example.org/a\r\nHost: b", "control characters"),
        ("http://example.org/a b", "blanks"),
        ("http://example.org/" + "a" * 9000, "too long"),
    ],
)
def test_links_that_are_none_are_refused(url: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        check_url(url)


def resolve_to(patch: pytest.MonkeyPatch, *addresses: str) -> list[Any]:
    """Have every name resolved to these. Returns what is connected to."""
    asked: list[Any] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    patch.setattr(socket, "getaddrinfo", resolve)

    def refuse(_: Any, where: Any) -> None:
        asked.append(where)
        raise ConnectionRefusedError

    patch.setattr(socket.socket, "connect", refuse)
    return asked


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, "10.1.2.3")
    with pytest.raises(RefusedError, match="--allow-private"):
        connect("example.org", 80, 1, allow_private=False)
    assert asked == []


def test_of_several_addresses_the_public_ones_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve_to(monkeypatch, "10.1.2.3", "93.184.215.14", "127.0.0.1", "93.184.215.15")
    with pytest.raises(ConnectionRefusedError):
        connect("example.org", 80, 1, allow_private=False)
    assert asked == [("93.184.215.14", 80), ("93.184.215.15", 80)]


def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server of names that says something else the second time changes nothing."""
    asked = resolve_to(monkeypatch, "93.184.215.14")
    first, times = socket.getaddrinfo, []

    def rebind(*given: Any, **more: Any) -> Any:
        times.append(given)
        if len(times) > 1:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
        return first(*given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    with pytest.raises(ConnectionRefusedError):
        connect("example.org", 80, 1, allow_private=False)
    assert asked == [("93.184.215.14", 80)]
    assert len(times) == 1


@pytest.mark.parametrize("name", ["a..b", "x" * 70 + ".org", "\udcff.org"])
def test_a_name_that_cannot_be_is_no_crash(name: str) -> None:
    with pytest.raises(LinkError, match="not known"):
        connect(name, 80, 1, allow_private=False)
