"""Bytes under keys of an S3 bucket (any S3-compatible server). Not here: tables, the `client`.

A PUT is atomic: a reader sees the old object or the new one. `If-None-Match: *` decides who is
first (works on AWS, MinIO, Ceph, Swift); `If-Match` keeps a stalled compaction from overwriting a
newer one, where the server knows it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from resources.environment import answer_timeout_s, of_aws
from resources.lake.s3.client import (
    MISSING,
    error_code,
    find_object,
    has_bucket,
    make_client,
    purge_versions,
    read_body,
    s3_errors,
    used_account,
)
from resources.lake.storage import LOCKS, AsideFile, ChangedError, check_key
from resources.processes import is_gone, process_name
from resources.processes.silence import GRACE_S, Silence

LOCK_S = 900.0
"""A lock older than this belongs to a process that is gone, or stalled."""
LOCK_BEAT_S = 5.0
"""How often a lock is made young again while it is held."""
SINGLE_PUT_BYTES = 512 * 2**20
"""Larger files go in parts. Whether a condition on the last part counts is up to the server."""
PART_BYTES = 64 * 2**20
_FILES = Path("/proc/self/fd")
_TAKEN = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_UNKNOWN = {"501", "NotImplemented"}


class BucketAwayError(ConnectionError):
    """A server does not know the lake's bucket: one that is coming back may say so for a moment."""


class S3Storage:
    """A prefix of a bucket: s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        # Clients of S3 disagree about keys with empty parts and dots.
        if not bucket or (self.prefix and not {"", ".", ".."}.isdisjoint(self.prefix.split("/"))):
            raise ValueError(f"not an S3 location: {url}; write s3://bucket/prefix")
        self.location = f"s3://{bucket}/{self.prefix}".rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        kept = ("bucket", "prefix", "location")
        return {k: v for k, v in self.__dict__.items() if k in kept}

    @cached_property
    def client(self) -> Any:
        return make_client()

    @cached_property
    def filesystem(self) -> Any:
        """pyarrow's, for reads by range."""
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        account = used_account()
        given = account.endpoint_url or of_aws("ENDPOINT_URL_S3")
        given = given or of_aws("ENDPOINT_URL")
        options: dict[str, Any] = {}
        if account.access_key_id:
            options["access_key"] = account.access_key_id
            options["secret_key"] = account.secret_access_key
            options["session_token"] = of_aws("SESSION_TOKEN")
        if given:
            scheme, _, host = given.partition("://")
            options |= {"endpoint_override": host, "scheme": scheme}
        return S3FileSystem(
            region=self.client.meta.region_name,
            connect_timeout=10,
            request_timeout=answer_timeout_s(),
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=8),
            **options,
        )

    def uri(self, key: str) -> str:
        return f"{self.location}/{check_key(key)}"

    def arrow_path(self, key: str) -> str:
        """What `filesystem` calls the object: its plain key, of which nothing is escaped."""
        return f"{self.bucket}/{self._key(key)}"

    def exists(self, key: str) -> bool:
        return self.version(key) is not None

    def version(self, key: str) -> str | None:
        """The object's ETag; None if there is none. Raises BucketAwayError."""
        found = find_object(self.client, self.bucket, self._key(key))
        if found is None:
            self._must_have_bucket()
        return found["ETag"] if found else None

    def _must_have_bucket(self) -> None:
        """Raise BucketAwayError if it is not the object that is missing but the bucket."""
        if not has_bucket(self.client, self.bucket):
            raise BucketAwayError(f"there is no bucket {self.bucket} (any more)")

    def identity(self, key: str) -> str | None:
        """Tells one object under a key from another that replaced it; None if there is none."""
        return self.version(key)

    def is_lake(self) -> bool:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(""), MaxKeys=1)
        return bool(found.get("KeyCount", 0))

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        from botocore.exceptions import ClientError

        try:
            return read_body(self.client, Bucket=self.bucket, Key=self._key(key))
        except ClientError as error:
            if error_code(error) in MISSING:
                raise FileNotFoundError(self.uri(key)) from error
            raise

    def open(self, key: str) -> pa.NativeFile:
        """For reads by range. Raises FileNotFoundError, BucketAwayError."""
        try:
            return self.filesystem.open_input_file(self.arrow_path(key))
        except FileNotFoundError:
            self._must_have_bucket()
            raise

    def sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        try:
            with self.open(key) as file:
                while block := file.read(2**22):
                    digest.update(block)
        except OSError as error:  # Arrow's of an object that is deleted while it is read
            if self.identity(key) is None:
                raise FileNotFoundError(self.uri(key)) from error
            raise
        return digest.hexdigest()

    def size(self, key: str) -> int:
        with self.open(key) as file:
            size: int = file.size()
        return size

    def write(self, key: str, data: bytes | memoryview, *, replace: bool = True) -> bool:
        """Publish `data` under `key`. With replace=False the first writer wins; tells if it did."""
        condition = {} if replace else {"IfNoneMatch": "*"}
        try:
            self._put(key, io.BytesIO(data), condition)
        except ChangedError:
            # The answer to our first try may have been lost on its way: then it is ours.
            try:
                return self.read(key) == bytes(data)
            except FileNotFoundError:  # gone again, as a lock goes
                return False
        return True

    @contextmanager
    def open_aside(
        self, key: str, *, replace: bool = True, version: str | None = ""
    ) -> Iterator[AsideFile]:
        """A local file to fill; uploaded to `key` when the block ends without an exception.

        version: the ETag that the object must still have (None: it must not be there yet; "": any).
        Raises ChangedError if it has another.
        """
        has_proc = _FILES.is_dir()
        # A file without a name dies with us.
        make: Any = tempfile.TemporaryFile if has_proc else tempfile.NamedTemporaryFile
        with make() as raw:
            path = _FILES / str(raw.fileno()) if has_proc else Path(raw.name)
            file = AsideFile(raw, path)
            yield file
            raw.flush()
            is_new = version is None or not replace
            condition = {"IfNoneMatch": "*"} if is_new else {"IfMatch": version} if version else {}
            self.put_file(key, path, condition)
            file.published = True

    def put_file(self, key: str, path: Path, condition: dict[str, str]) -> None:
        """Upload a file to `key`, if a condition of S3's holds. Raises ChangedError."""
        if path.stat().st_size > SINGLE_PUT_BYTES:
            self._upload(key, path, condition)
        else:
            with path.open("rb") as body:
                self._put(key, body, condition)

    def list(self, prefix: str, begin: str = "") -> list[str]:
        """Keys of the objects directly in the folder `prefix`, sorted; of those whose names begin
        with `begin`."""
        return sorted(self._pages(prefix, begin, Delimiter="/"))

    def walk(self, prefix: str) -> Iterator[str]:
        """Keys of the objects in the folders below `prefix`."""
        return self._pages(prefix)

    def _pages(self, prefix: str, begin: str = "", **options: str) -> Iterator[str]:
        start = self._key(prefix) + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=start + begin, **options
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                yield f"{prefix}/{entry['Key'].removeprefix(start)}"

    def everything(self, folder: str = "") -> Iterator[str]:
        """Keys of all objects, or of those below a folder, but for what stands for a folder: also
        those that no method takes (`is_safe`)."""
        start = self._key("")
        pages, below = self.client.get_paginator("list_objects_v2"), f"{folder}/" if folder else ""
        for page in pages.paginate(Bucket=self.bucket, Prefix=start + below):
            keys = (entry["Key"] for entry in page.get("Contents", ()))
            yield from (key.removeprefix(start) for key in keys if not key.endswith("/"))

    def drop_empty(self, prefix: str) -> None:
        """There are no folders here."""

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def purge(self, begin: str, is_wanted: Callable[[str], bool] = lambda key: True) -> int:
        """Delete what a bucket with versions keeps of objects that were replaced or deleted, and
        whose keys begin so. Returns how many. is_wanted: of which, by their keys. Raises
        PermissionError."""
        start = self._key("")
        wanted = (start + begin, lambda key: is_wanted(key.removeprefix(start)))
        return purge_versions(self.client, self.bucket, *wanted)

    def copy(self, key: str, target: str) -> None:
        """Publish an object under another key, too, in place of what is there."""
        source = {"Bucket": self.bucket, "Key": self._key(key)}
        self.client.copy(source, self.bucket, self._key(target))

    def move(self, key: str, target: str) -> None:
        self.copy(key, target)
        self.delete(key)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time is in here under `name`, but for one stalled over LOCK_S.

        Who wants in puts an object of a name of its own and looks whether others are there: of
        two, one at least sees the other. That takes no more of a server than listings that are
        true. The object is put again and again while its owner lives; of a dead one it grows old.
        """
        folder, silence = f"{LOCKS}/{name}", Silence()
        while True:
            live, dead = self._owners(folder, silence)
            if not live:
                mine = f"{folder}/{process_name()}.{uuid.uuid4().hex}"
                self.write(mine, b"")
                live = self._owners(folder, silence)[0] - {mine}
                if not live:
                    break
                self.delete(mine)
            time.sleep(random.uniform(0.05, 0.5))
        over = threading.Event()
        heart = threading.Thread(target=self._keep_young, args=(mine, over), daemon=True)
        heart.start()
        try:
            for key in dead:
                self.delete(key)
            yield
        finally:
            over.set()
            heart.join()  # or its last PUT could come after the end
            self.delete(mine)

    def _keep_young(self, key: str, over: threading.Event) -> None:
        while not over.wait(LOCK_BEAT_S):
            with suppress(*s3_errors()):  # a server that is away for a while
                self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=b"")

    def _owners(self, folder: str, silence: Silence) -> tuple[set[str], set[str]]:
        """Keys in a lock's folder: of owners that may live, and of those that do not.

        An owner of another machine is dead if its object is old by the server's clock, and stays as
        it is while we look: clocks are put forward. One of this machine, if its process is gone.
        """
        start = self._key(folder) + "/"
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=start)
        now = self._now(found)
        live: set[str] = set()
        dead: set[str] = set()
        for entry in found.get("Contents", ()):
            owner = entry["Key"].removeprefix(start)
            age_s = (now - entry["LastModified"]).total_seconds()
            watched_s = silence.of(owner, [entry["LastModified"]])
            is_old = max(age_s, watched_s) > LOCK_S
            is_dead = is_old and watched_s > 3 * LOCK_BEAT_S
            if is_gone(owner.rpartition(".")[0]):
                is_dead |= max(age_s, watched_s) > GRACE_S
            (dead if is_dead else live).add(f"{folder}/{owner}")
        return live, dead

    def sweep_aside(self, older_than_s: float, grace_s: float = GRACE_S) -> int:
        """Abort uploads that killed writers left behind. Returns how many. grace_s: of no use here,
        where only the age of an upload is known."""
        found = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self._key(""))
        now = self._now(found)
        count = 0
        for upload in found.get("Uploads", ()):
            if (now - upload["Initiated"]).total_seconds() > older_than_s:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
                count += 1
        return count

    # -- inside ------------------------------------------------------------------------------

    @staticmethod
    def _now(answer: Mapping[str, Any]) -> datetime:
        """By the server's clock: ours may be wrong."""
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else datetime.now(UTC)

    def _key(self, key: str) -> str:
        if not key:
            return f"{self.prefix}/" if self.prefix else ""
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _put(
        self, key: str, body: io.BytesIO | io.BufferedReader, condition: dict[str, str]
    ) -> None:
        from botocore.exceptions import ClientError

        md5 = hashlib.file_digest(body, lambda: hashlib.md5(usedforsecurity=False)).digest()
        where = {"Bucket": self.bucket, "Key": self._key(key)}
        request = where | {"ContentMD5": base64.b64encode(md5).decode()}
        try:
            body.seek(0)
            self.client.put_object(**request, Body=body, **condition)
        except ClientError as error:
            if "IfMatch" in condition and error_code(error) in _UNKNOWN:
                body.seek(0)
                self.client.put_object(**request, Body=body)
            elif error_code(error) in _TAKEN:
                raise ChangedError(f"{self.uri(key)} was written by somebody else") from error
            else:
                raise

    def _upload(self, key: str, path: Path, condition: dict[str, str]) -> None:
        """In parts; the condition is that of the last request, which makes it visible."""
        from botocore.exceptions import ClientError

        where = {"Bucket": self.bucket, "Key": self._key(key)}
        upload = self.client.create_multipart_upload(**where)["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            with path.open("rb") as file:
                while block := file.read(PART_BYTES):
                    md5 = hashlib.md5(block, usedforsecurity=False).digest()
                    number = len(parts) + 1
                    answer = self.client.upload_part(
                        **where,
                        UploadId=upload,
                        PartNumber=number,
                        Body=block,
                        ContentMD5=base64.b64encode(md5).decode(),
                    )
                    parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            done = {**where, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
            try:
                self.client.complete_multipart_upload(**done, **condition)
            except ClientError as error:
                if "IfMatch" in condition and error_code(error) in _UNKNOWN:
                    self.client.complete_multipart_upload(**done)
                elif error_code(error) in _TAKEN:
                    raise ChangedError(f"{self.uri(key)} was written by somebody else") from error
                else:
                    raise
        except BaseException:
            self.client.abort_multipart_upload(**where, UploadId=upload)
            raise
