"""Single objects of an S3 bucket, by their uris: what S3 says of one, which of several is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resources.lake.s3.client import find_object, make_client
from resources.raw.uris import S3

MAX_KEY_BYTES = 1024
"""Of a key on S3."""


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Split a uri. Raises ValueError if it names no bucket."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if not bucket:
        raise ValueError(f"not an S3 location: {uri}; write s3://bucket/prefix")
    return bucket, key


def head_of(bucket: str, key: str) -> dict[str, Any] | None:
    """What S3 says of an object; None if there is none. Raises ClientError."""
    if len(key.encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES:
        return None
    return find_object(make_client(), bucket, key)


def first_object(uris: Sequence[str]) -> str | None:
    """The first of some objects of S3 that is there. Their names differ in their suffix alone, so
    that one listing tells, whatever else begins like them."""
    keys = {bucket_and_key(uri)[1]: uri for uri in uris}
    bucket, first = bucket_and_key(uris[0])[0], min(keys)
    if any(len(key.encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES for key in keys):
        return next((uri for key, uri in keys.items() if head_of(bucket, key)), None)
    pages = (
        make_client()
        .get_paginator("list_objects_v2")
        .paginate(
            Bucket=bucket,
            Prefix=f"{first.rpartition('.')[0]}.",
            Delimiter="/",
            StartAfter=first[:-1],  # which sorts before it, and behind all that is of no interest
        )
    )
    there: set[str] = set()
    for page in pages:
        found = [entry["Key"] for entry in page.get("Contents", ())]
        there.update(keys.keys() & set(found))
        if found and found[-1] >= max(keys):
            break
    return next((uri for key, uri in keys.items() if key in there), None)
