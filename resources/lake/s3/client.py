"""The client of an S3 server: whose account it uses, and what its answers mean.

Endpoint, region and credentials come from the usual variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …) or the machine's role. Not here: the lake's bytes under keys (`storage`).
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from resources.environment import answer_timeout_s, of_aws

BODY_TRIES = 5
MISSING = {"404", "NoSuchKey", "NotFound"}
_NO_VERSIONS = {"501", "NotImplemented", "405", "MethodNotAllowed"}
"""What a server answers that keeps no versions."""


@dataclass(frozen=True)
class S3Account:
    """Which server, and as whom. What is empty is as the environment says."""

    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)


_account = S3Account()


def use_account(account: S3Account) -> None:
    """Reach S3 with an account from now on, in this process and the workers that it starts.

    It is kept out of the environment, which every program that is started here would inherit.
    """
    global _account
    _account = account


def used_account() -> S3Account:
    """The account that this process reaches S3 with."""
    return _account


def make_client() -> Any:
    """This process' client of the server that the account or the environment names. Safe to use
    from threads."""
    names = ("ENDPOINT_URL_S3", "ENDPOINT_URL", "REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    return _client(os.getpid(), _account, tuple(map(of_aws, names)))


@lru_cache(maxsize=4)
def _client(pid: int, account: S3Account, environment: tuple[str | None, ...]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "to read from S3, install boto3: pip install 'ego-assets[s3]'", name=error.name
        ) from error

    # A session of its own: the default one remembers the first credentials for ever.
    return boto3.session.Session().client(
        "s3",
        endpoint_url=account.endpoint_url or None,
        region_name=account.region or None,
        aws_access_key_id=account.access_key_id or None,
        aws_secret_access_key=account.secret_access_key or None,
        aws_session_token=of_aws("SESSION_TOKEN") if account.access_key_id else None,
        config=Config(
            retries={"max_attempts": 8, "mode": "adaptive"},
            connect_timeout=10,
            read_timeout=answer_timeout_s(),
            max_pool_connections=16,
            # Not every server knows the newer checksums; ours go along as Content-MD5.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def s3_errors() -> tuple[type[Exception], ...]:
    """What boto3 raises when a server refuses, or is not there."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


def find_object(client: Any, bucket: str, key: str) -> dict[str, Any] | None:
    """What head_object says of an object; None if there is none. Raises ClientError."""
    from botocore.exceptions import ClientError

    try:
        head: dict[str, Any] = client.head_object(Bucket=bucket, Key=key)
        return head
    except ClientError as error:
        if error_code(error) in MISSING:
            return None
        raise


def has_bucket(client: Any, bucket: str) -> bool:
    """Whether there is such a bucket. Raises ClientError if the server does not say."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) in MISSING | {"NoSuchBucket"}:
            return False
        if error_code(error) not in {"403", "AccessDenied"}:
            raise
    return True  # or it may not be asked for: then it was the object that is missing


def purge_versions(client: Any, bucket: str, prefix: str) -> int:
    """Delete all versions of objects that are not the current ones, and marks of deletion. Returns
    how many. Raises PermissionError if this user may not do that; ClientError."""
    from botocore.exceptions import ClientError

    try:
        paginator = client.get_paginator("list_object_versions")
        pages = list(paginator.paginate(Bucket=bucket, Prefix=prefix))
        old = [v for page in pages for v in page.get("Versions", ()) if not v["IsLatest"]]
        # Marks last: without its mark, the version below it would be the current one.
        old += [mark for page in pages for mark in page.get("DeleteMarkers", ())]
        for one in old:
            client.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
    except ClientError as error:
        if error_code(error) in _NO_VERSIONS:
            return 0
        if error_code(error) in {"403", "AccessDenied"}:
            raise PermissionError(
                f"s3://{bucket} may keep earlier versions of what was erased, and this user may "
                "not look for them or delete them: allow s3:ListBucketVersions and "
                "s3:DeleteObjectVersion, and forget again"
            ) from error
        raise
    return len(old)


def read_body(client: Any, **request: str) -> bytes:
    """The bytes of get_object, asked for again if the answer breaks off. Raises ClientError."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    for last in (False,) * (BODY_TRIES - 1) + (True,):
        found = client.get_object(**request)
        try:
            body: bytes = found["Body"].read()  # raises if it is cut short
            return body
        except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError):
            if last:
                raise
        time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("unreachable")


def error_code(error: Any) -> str:
    """S3's name of what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))
