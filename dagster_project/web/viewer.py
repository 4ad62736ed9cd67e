"""Serves one Rerun recording, and Rerun's web viewer to look at it, to browsers of this machine.

The page is our own: that of Rerun asks other servers for fonts, and the viewer reports how it is
used. The page may speak to nothing but this server (Content-Security-Policy), and nobody but this
machine may ask. Not here: what is in the recording (`ego_assets.viewing`).
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dagster_project.web.hosts import LOCAL_NAMES, is_allowed, parse_authority
from resources.processes.program import Program

HOST = "127.0.0.1"
SCRIPT, PROGRAM, RECORDING = "re_viewer.js", "re_viewer_bg.wasm", "recording.rrd"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".rrd": "application/octet-stream",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' data: blob:; "
    "img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_START_S = 60
_LOOK_S = 0.05

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>ego view</title><link rel="icon" href="data:,">
<style>
html, body {{ margin: 0; height: 100%; overflow: hidden; background: #0d1011; color: #ccd; }}
canvas {{ position: absolute; top: 0; left: 0; width: 100%; height: 100%; }}
p {{ font: 16px sans-serif; text-align: center; margin-top: 40vh; }}
</style></head>
<body><p id="state">The viewer is loading.</p><canvas id="canvas"></canvas>
<script src="{script}"></script><script src="start.js"></script></body>
</html>
"""
_START = """"use strict";
const say = (words) => { document.getElementById("state").textContent = words; };
const query = new URLSearchParams(location.search);
// The viewer reports to its makers and asks whether there is a newer one: here, nobody answers.
const reach = window.fetch.bind(window);
window.fetch = (asked, options) => {
  const url = new URL(asked instanceof Request ? asked.url : asked, location.href);
  return url.origin === location.origin || ["data:", "blob:"].includes(url.protocol)
    ? reach(asked, options) : Promise.resolve(new Response(null, { status: 204 }));
};
async function start() {
  await wasm_bindgen({ module_or_path: "re_viewer_bg.wasm" });
  const viewer = new wasm_bindgen.WebHandle({
    url: [new URL("recording.rrd", location.href).href],
    hide_welcome_screen: true,
    notebook: false,
    persist: false,
    enable_history: false,
    render_backend: query.get("renderer"),
  });
  await viewer.start(document.getElementById("canvas"));
  say("");
  document.documentElement.dataset.state = "started";
  setInterval(() => {
    if (viewer.has_panicked()) say("The viewer has stopped: " + viewer.panic_message());
  }, 1000);
}
start().catch((error) => say("The viewer does not start in this browser: " + error));
"""


class ViewerMissingError(Exception):
    """Rerun's web viewer cannot be had. Says what to do."""


class ViewerServer:
    """Serves a recording; a context manager, which lets go of the port. url: where the page is.

    folder: for files of the viewer; port: 0 takes a free one. Raises OSError if the port cannot be
    had, ViewerMissingError.
    """

    def __init__(self, recording: Path, folder: Path, port: int = 0) -> None:
        self._server = ThreadingHTTPServer((HOST, port), _Handler)
        self._server.daemon_threads = True
        (folder / "index.html").write_text(_PAGE.format(script=SCRIPT), encoding="utf-8")
        (folder / "start.js").write_text(_START, encoding="utf-8")
        files = {f"/{name}": folder / name for name in ("index.html", "start.js", SCRIPT, PROGRAM)}
        files |= {"/": folder / "index.html", f"/{RECORDING}": recording}
        self._server.files = files  # type: ignore[attr-defined]
        self.url = f"http://{HOST}:{self._server.server_port}/"
        try:
            _unpack_viewer(folder)
        except BaseException:
            self._server.server_close()
            raise

    def serve(self) -> None:
        """Answer requests until KeyboardInterrupt."""
        self._server.serve_forever(poll_interval=0.1)

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Answer requests during the block."""
        thread = threading.Thread(target=self.serve, name="viewer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()  # else it would look at a closed socket without a pause
            thread.join()

    def __enter__(self) -> ViewerServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = parse_authority(self.headers.get("Host", ""))
        own = [found for found in map(parse_authority, LOCAL_NAMES) if found]
        if host is None or not is_allowed(host, own):
            # Another site's name that leads to this machine (DNS rebinding) must not read it.
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        path = self.server.files.get(self.path.partition("?")[0])  # type: ignore[attr-defined]
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TYPES[path.suffix])
            self.send_header("Content-Length", str(path.stat().st_size))
            self._send_rules()
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self._send_rules()
        self.end_headers()

    def _send_rules(self) -> None:
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")

    def log_message(self, *_: Any) -> None:
        """Say nothing: a person looks at the browser."""


def _unpack_viewer(folder: Path) -> None:
    """Put the viewer's files into a folder. They are inside Rerun's program, which hands them out
    only as a server: it runs for a moment, for this machine alone, with nothing to show.

    Raises ViewerMissingError.
    """
    home = folder / "home"
    _without_analytics(home)
    port, other = _free_port(), _free_port()
    where = ["--bind", HOST, "--web-viewer-port", str(port), "--port", str(other)]
    environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "RUST_LOG": "error"}
    with (folder / "rerun.log").open("w+b") as log:
        options: dict[str, Any] = {"stdin": log, "stdout": log, "stderr": log, "env": environment}
        program = Program([str(_rerun()), "--serve-web", *where], **options)
        try:
            for name in (SCRIPT, PROGRAM):
                _fetch(program, port, name, folder / name)
        except (OSError, http.client.HTTPException) as error:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-500:]
            raise ViewerMissingError(f"Rerun's web viewer: {error}\n{said}".strip()) from error
        finally:
            program.kill()


def _fetch(program: Program, port: int, name: str, path: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        connection = http.client.HTTPConnection(HOST, port, timeout=_START_S)
        try:
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise http.client.HTTPException(f"{name}: status {answer.status}")
            with path.open("wb") as out:
                shutil.copyfileobj(answer, out, 1 << 20)
            return
        except ConnectionRefusedError:
            if program.status is not None or time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_S)
        finally:
            connection.close()


def _without_analytics(home: Path) -> None:
    """A home in which Rerun was told to report nothing; it is asked for nothing else."""
    folder = home / ".config" / "rerun"
    folder.mkdir(parents=True)
    choice = {"analytics_enabled": False, "analytics_id": "", "metadata": {}}
    paths = {
        "config_file_path": str(folder / "analytics.json"),
        "data_dir_path": str(home / ".local" / "share" / "rerun" / "analytics"),
    }
    (folder / "analytics.json").write_text(json.dumps(choice | paths))


def _rerun() -> Path:
    """Rerun's program, beside its library."""
    found = find_spec("rerun_cli")
    if found is None or not found.origin:
        raise ViewerMissingError("rerun-sdk has no program here")
    name = "rerun.exe" if sys.platform == "win32" else "rerun"
    return Path(found.origin).parent / name


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port
