"""Small real servers that keep what they are told: HTTP and SMTP."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Inbox:
    """What a server was told. `status`, `location`: what HTTP answers. logins: (user, password)."""

    port: int = 0
    status: int = 200
    location: str = ""
    messages: list[Any] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def http_inbox() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if inbox.status == 200:
                inbox.messages.append(json.loads(body))
            self.answer(inbox.status)

        def do_GET(self) -> None:
            self.answer(200)

        def answer(self, status: int) -> None:
            self.send_response(status)
            if inbox.location:
                self.send_header("Location", inbox.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with _served(ThreadingHTTPServer(("127.0.0.1", 0), Handler), inbox):
        yield inbox


class _Mail(socketserver.StreamRequestHandler):
    """What smtp_inbox does with one client."""

    inbox: Inbox
    pem: Path | None
    refuses: str

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self) -> None:
        self.say("220 here")
        is_safe = False
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO" and self.pem is not None:
                self.say("250-here")
                self.say("250 AUTH PLAIN" if is_safe else "250 STARTTLS")
            elif verb == "STARTTLS" and self.pem is not None:
                self.say("220 go on")
                if not self.encrypt(self.pem):
                    return
                is_safe = True
            elif verb == "AUTH":
                _, user, password = base64.b64decode(line.split()[-1]).decode().split("\0")
                self.inbox.logins.append((user, password))
                self.say("235 ok")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.inbox.messages.append("\n".join(lines))
                self.say("250 ok")
            elif verb == "RCPT" and self.refuses in line:
                self.say("550 who?")
            else:
                self.say("221 bye" if verb == "QUIT" else "250 ok")

    def encrypt(self, pem: Path) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        try:
            self.request = context.wrap_socket(self.request, server_side=True)
        except OSError:  # the client does not trust us
            return False
        self.setup()
        return True


@contextmanager
def smtp_inbox(pem: Path | None = None, *, refuses: str = "nobody") -> Iterator[Inbox]:
    """pem: its certificate and key; with them it offers STARTTLS, and logins behind that."""
    inbox = Inbox()
    handler = type("Handler", (_Mail,), {"inbox": inbox, "pem": pem, "refuses": refuses})
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    with _served(server, inbox):
        yield inbox


@contextmanager
def babbler(first: bytes, then: bytes = b"", gap_s: float = 0.02) -> Iterator[Inbox]:
    """Answers whatever it is asked with `first`, then with `then`, again and again."""
    inbox, is_over = Inbox(), threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            inbox.messages.append(self.request.recv(65536))
            self.request.sendall(first)
            while then and not is_over.wait(gap_s):
                self.request.sendall(then)

    with _served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler), inbox):
        try:
            yield inbox
        finally:
            is_over.set()


def self_signed(file: Path, name: str = "localhost") -> Path:
    """A certificate and its key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    signed = made.sign(key, hashes.SHA256()).public_bytes(pem)
    file.write_bytes(signed + key.private_bytes(pem, *plain))
    return file


@contextmanager
def _served(server: socketserver.TCPServer, inbox: Inbox) -> Iterator[None]:
    inbox.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
