"""Take the port of the UI before anything is started, so that a port in use is told at once."""

from __future__ import annotations

import errno
import http.client
import socket

import click

from dagster_project.web.hosts import LOCAL_NAMES, Authority, parse_authority

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_ANSWER_S = 5


class Listener:
    """A port on every address of a host. Taken when this is made; it listens when told to.

    Raises click.ClickException where the port cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.sockets = self._bound()
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{port}"
        names = LOCAL_NAMES if host in _ANY_ADDRESS else (*LOCAL_NAMES, name)
        self.names: list[Authority] = [found for found in map(parse_authority, names) if found]

    def listen(self) -> None:
        """Let the kernel accept connections: they wait until a process serves the sockets."""
        for one in self.sockets:
            try:
                one.listen()
            except OSError as error:  # another `ego up` was faster
                raise self._refusal(error) from error

    def close(self) -> None:
        """Leave the port to the process that has inherited the sockets."""
        for one in self.sockets:
            one.close()

    def answers(self) -> bool:
        """Whether the UI answers a request."""
        address = _ANY_ADDRESS.get(self.host, self.host)
        connection = http.client.HTTPConnection(address, self.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", "/server_info")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _bound(self) -> list[socket.socket]:
        try:
            found = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except socket.gaierror as error:
            raise click.ClickException(f"--host {self.host}: {error.strerror}") from error
        sockets: list[socket.socket] = []
        missing: OSError | None = None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                sockets.append(_bind(family, kind, protocol, address))
            except OSError as error:
                # As ::1 of localhost, where there is no IPv6.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise self._refusal(error) from error
                missing = error
        if missing and not sockets:
            raise click.ClickException(
                f"--host {self.host}: this machine has no such address"
            ) from missing
        return sockets

    def _refusal(self, error: OSError) -> click.ClickException:
        if error.errno == errno.EADDRINUSE:
            other = self.port + 1 if self.port < 65535 else self.port - 1
            return click.ClickException(
                f"port {self.port} of {self.host} is in use: stop what has it, or take another "
                f"one, for instance ego up --port {other}"
            )
        return click.ClickException(
            f"port {self.port} of {self.host} cannot be used: {error.strerror}"
        )


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, kind, protocol)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
