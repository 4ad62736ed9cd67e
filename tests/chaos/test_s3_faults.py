"""A lake behind a network that fails: 500, 503 SlowDown, resets, stalls, bodies cut short."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from ego_assets.engine.runner import run_stage
from ego_assets.upkeep import audit
from resources.lake import Lake
from resources.ledger import Ledger, State
from tests.engine.stage_bench import make_bench
from tests.resources.s3_server import new_bucket, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
SLOW_DOWN = b"""<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>wait</Message></Error>"""
TIMEOUT_S = 2
BROKEN = b"""<?xml version="1.0"?><Error><Code>InternalError</Code><Message>x</Message></Error>"""


class FaultyProxy(BaseHTTPRequestHandler):
    """Passes requests on to a real server, but for some."""

    protocol_version = "HTTP/1.1"
    target = ""
    share = 0.0
    dice = random.Random(5)
    dealt: ClassVar[Counter[str]] = Counter()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            self.close_connection = True
            return
        fault = ""
        if self.dice.random() < self.share:
            fault = self.dice.choice(["500", "503", "reset", "lost answer", "cut", "stall"])
        if fault in {"500", "503"}:
            self.dealt[fault] += 1
            self._answer(int(fault), {}, BROKEN if fault == "500" else SLOW_DOWN)
            return
        if fault == "reset":
            self.dealt[fault] += 1
            self.close_connection = True
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {"connection"}}
        answer = requests.request(
            self.command,
            self.target + self.path,
            headers=headers,
            data=body,
            timeout=60,
            stream=True,
        )
        content = answer.raw.read(decode_content=False)
        if fault == "stall":  # the answer comes when nobody waits for it any more
            self.dealt[fault] += 1
            time.sleep(TIMEOUT_S + 1)
        if fault == "lost answer":  # it was done, and nobody hears of it
            self.dealt[fault] += 1
            self.close_connection = True
            return
        is_cut = fault == "cut" and len(content) > 100
        if is_cut:
            self.dealt[fault] += 1
        with suppress(ConnectionError):  # after a stall nobody listens
            self._answer(answer.status_code, dict(answer.headers), content, cut=is_cut)

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        dropped = {"content-length", "transfer-encoding", "connection"}
        for name, value in headers.items():
            if name.lower() not in dropped:
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def faults(endpoint: str, share: float) -> Iterator[str]:
    handler = type("Handler", (FaultyProxy,), {"target": endpoint, "share": share})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def test_a_stage_goes_through_a_network_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch) as endpoint:
        location = f"s3://{new_bucket()}/lake"
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
        bench = make_bench(tmp_path, {f"v{n}": 4 for n in range(3)}, Lake(location))
        FaultyProxy.dealt.clear()
        with faults(endpoint, share=0.1) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
            monkeypatch.setenv("EGO_S3_TIMEOUT_S", str(TIMEOUT_S))
            spec = replace(bench.spec, lake_root=location, ledger_url=ledger.url)
            report = run_stage(spec, workers=2)
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert report.failures == []
        assert ledger.counts() == {"object_movements": {State.DONE: 12}}
        lake = Lake(location)
        assert lake.read("object_movements", bench.spec.shard).num_rows == 12
        problems = audit.verify(lake, ledger)
        assert [p for p in problems if p.table == "object_movements"] == []
        assert len(FaultyProxy.dealt) >= 4, FaultyProxy.dealt
