"""An S3 server of the tests' own that keeps its data and its secrets: OpenStack Swift, one node.

Wrong keys are refused, what it has acknowledged survives a kill, `If-None-Match: *` lets one of
many win; `If-Match` on a PUT it does not know (501). Not MinIO, not AWS.
"""

from __future__ import annotations

import configparser
import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from tests.resources.ports import free_port

ACCESS, SECRET = "team:robot", "swift-secret-91ab"  # pragma: allowlist secret
RINGS = ("account", "container", "object")
START_S = 180


class SwiftServer:
    """Four processes over a folder; `start`, `kill`, and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in (*RINGS, "proxy")}
        self.endpoint = f"http://127.0.0.1:{self.ports['proxy']}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._configure()

    def start(self) -> None:
        for name in (*RINGS, "proxy"):
            log = (self.folder / f"{name}.log").open("ab")
            command = [str(Path(sys.executable).with_name(f"swift-{name}-server"))]
            # Each in a group of its own: a server has workers, and a kill must take them along.
            process = subprocess.Popen(
                [*command, str(self.folder / f"{name}.conf"), "-v"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"SWIFT_TEST_CONFIG_FILE": "/dev/null"},
            )
            log.close()
            self.processes.append(process)
        deadline = time.monotonic() + START_S
        while not all(map(self._answers, self.ports.values())):
            dead = [p.args for p in self.processes if p.poll() is not None]
            assert not dead, f"{dead}\n{self.logs()}"
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def _answers(self, port: int) -> bool:
        """Whatever it says: until all do, the proxy takes those that do not for broken."""
        with suppress(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/healthcheck", timeout=5)
            return True
        return False

    def kill(self) -> None:
        """As a power cut would end it."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    def logs(self) -> str:
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-2000:]}" for p in paths)

    def _configure(self) -> None:
        disk = self.folder / "disks" / "d1"
        disk.mkdir(parents=True)
        common = {
            "swift_dir": str(self.folder),
            "user": _user(),
            "workers": "0",
            "bind_ip": "127.0.0.1",
            "log_address": "/nonexistent",
            "db_preallocation": "off",
            "fallocate_reserve": "0",
            "disable_fallocate": "true",
        }
        for name in RINGS:
            own = {
                "devices": str(self.folder / "disks"),
                "mount_check": "false",
                "bind_port": str(self.ports[name]),
            }
            self._write(
                f"{name}.conf",
                {
                    "DEFAULT": common | own,
                    "pipeline:main": {"pipeline": f"{name}-server"},
                    f"app:{name}-server": {"use": f"egg:swift#{name}"},
                },
            )
        # In a process of its own: Swift brings eventlet, which changes the one that imports it.
        spawn = multiprocessing.get_context("spawn")
        rings = spawn.Process(target=make_rings, args=(str(self.folder), self.ports))
        rings.start()
        rings.join(60)
        assert rings.exitcode == 0
        filters = ("healthcheck", "cache", "s3api", "tempauth", "slo", "copy", "symlink")
        uses = {f"filter:{f}": {"use": f"egg:swift#{f}"} for f in (*filters, "versioned_writes")}
        uses["filter:cache"] = {"use": "egg:swift#memcache", "memcache_servers": "127.0.0.1:1"}
        uses["filter:s3api"] |= {"s3_acl": "no", "location": "us-east-1", "min_segment_size": "1"}
        account, user = ACCESS.split(":")
        uses["filter:tempauth"][f"user_{account}_{user}"] = f"{SECRET} .admin"
        uses["filter:versioned_writes"]["allow_object_versioning"] = "true"
        pipeline = "healthcheck cache s3api tempauth copy slo symlink versioned_writes proxy-server"
        own = {"bind_port": str(self.ports["proxy"])}
        # A slow machine is no broken one.
        patience = {"conn_timeout": "20", "node_timeout": "60", "error_suppression_limit": "1000"}
        app = {"use": "egg:swift#proxy", "account_autocreate": "true"} | patience
        content = {"DEFAULT": common | own, "pipeline:main": {"pipeline": pipeline}}
        self._write("proxy.conf", content | {"app:proxy-server": app} | uses)
        hashes = {"swift_hash_path_prefix": "a", "swift_hash_path_suffix": "b"}
        policy = {"name": "one", "default": "yes", "policy_type": "replication"}
        self._write("swift.conf", {"swift-hash": hashes, "storage-policy:0": policy})

    def _write(self, name: str, content: dict[str, dict[str, str]]) -> None:
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_dict(content)
        with (self.folder / name).open("w") as file:
            parser.write(file)


def make_rings(folder: str, ports: dict[str, int]) -> None:
    """Rings of one device."""
    from swift.common.ring import RingBuilder

    for name in RINGS:
        builder = RingBuilder(4, 1, 0)
        where = {"ip": "127.0.0.1", "port": ports[name], "device": "d1", "weight": 1.0}
        reach = {"replication_ip": "127.0.0.1", "replication_port": ports[name]}
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "meta": ""} | where | reach)
        builder.rebalance()
        builder.get_ring().save(f"{folder}/{name}.ring.gz")


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def swift_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SwiftServer]:
    """A running server, which the usual variables name."""
    server = SwiftServer(folder)
    values = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    try:
        server.start()
        yield server
    finally:
        server.kill()
