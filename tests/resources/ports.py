"""Ports for servers of the tests' own."""

from __future__ import annotations

import random
import socket

_dice = random.SystemRandom()


def free_port() -> int:
    """Below those that the kernel hands to clients: a server that restarts finds its own free."""
    while True:
        port = _dice.randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
