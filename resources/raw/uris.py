"""The uris of raw files, and the paths that they stand for.

A uri is an absolute path, `s3://bucket/key`, or, for a path that is not printable text (any bytes
may be in a name), `file://` with percent-encoding.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

S3 = "s3://"
ENCODED = "file://"
CAMERA, FOOTAGE = "camera", "footage"
"""Kinds of files beside a video: its calibration, and whose footage it is. `<stem>.camera.json` is
that of a video, `camera.json` that of every video in its folder that has none of its own, and
`footage.json` that of every video in its folder, as far as its own says nothing."""
SIDECAR_SUFFIXES = {
    CAMERA: (".json", ".yaml", ".yml", ".txt"),
    FOOTAGE: (".json", ".yaml", ".yml"),
}
MAX_SIDECAR_BYTES = 2**20
"""A larger file beside a video is not read, and not fetched."""


def uri_of(path: Path) -> str:
    """The uri of a local path, which may hold any bytes."""
    return uri_of_text(str(path))


def uri_of_text(text: str) -> str:
    """As `uri_of`, of a path that is text: listings have millions of them."""
    if text.isprintable() and not text.startswith(ENCODED):
        return text
    return ENCODED + quote_from_bytes(os.fsencode(text))


def path_of(uri: str) -> Path:
    """The local path of a uri that is not remote."""
    if uri.startswith(ENCODED):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(ENCODED))))
    return Path(uri)


def is_remote(uri: str) -> bool:
    return uri.startswith(S3)


def sidecars_of(uri: str, kind: str = CAMERA) -> list[str]:
    """The uris that a file beside a video may have: its own, then those of its folder."""
    own = sidecar_of(uri, kind).removesuffix(".json")
    if is_remote(uri):
        folder = f"{uri.rpartition('/')[0]}/{kind}"
    else:
        folder = uri_of(path_of(uri).with_name(kind))
    return [f"{name}{suffix}" for name in (own, folder) for suffix in SIDECAR_SUFFIXES[kind]]


def sidecar_of(uri: str, kind: str = CAMERA) -> str:
    """The uri of a video's own file of a kind, by its usual name."""
    if is_remote(uri):
        folder, _, name = uri.rpartition("/")
        return f"{folder}/{Path(name).stem}.{kind}.json"
    return uri_of(path_of(uri).with_suffix(f".{kind}.json"))
