"""An object of S3 as a file that is read in parts: enough for headers, which are no reason to fetch
all of a recording. Not here: copies of whole objects (`scratch`)."""

from __future__ import annotations

import errno
import io
from collections import OrderedDict

from resources.lake.s3.client import make_client, read_body
from resources.raw.presence import RawGoneError
from resources.raw.s3.objects import bucket_and_key, head_of

BLOCK_BYTES = 2**19
_KEPT_BLOCKS = 8


class RemoteFile(io.RawIOBase):
    """Raises RawGoneError if there is no such object, and what boto3 raises."""

    def __init__(self, uri: str) -> None:
        self.name = uri
        self._bucket, self._key = bucket_and_key(uri)
        head = head_of(self._bucket, self._key)
        if head is None:
            raise RawGoneError(errno.ENOENT, "there is no such object (any more)", uri)
        self._size, self._etag = int(head["ContentLength"]), head["ETag"]
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes, no more than are left of a block unless all are asked for."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        if self._at >= self._size or not size:
            return b""
        number, offset = divmod(self._at, BLOCK_BYTES)
        found = self._block(number)[offset : offset + size]
        self._at += len(found)
        return found

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            first = number * BLOCK_BYTES
            last = min(first + BLOCK_BYTES, self._size) - 1
            self._blocks[number] = read_body(
                make_client(),
                Bucket=self._bucket,
                Key=self._key,
                Range=f"bytes={first}-{last}",
                IfMatch=self._etag,
            )
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]
