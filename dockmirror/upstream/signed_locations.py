"""Addresses that a client carries for the mirror, and cannot change.

An upstream says where an upload goes on, and that may be anywhere.  The client is given a name below the
mirror's own host, in which the address stands; the mirror asks at no address that it has not sealed itself,
for this upstream and this repository.  So nobody makes it send bytes, or credentials, elsewhere.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256

from ..oci.errors import BlobUploadUnknown
from ..oci.reference import Repository

_PURPOSE = "dockmirror: where an upload goes on"


class LocationSigner:
    """The seals of one upstream.

    :param keys: of which the first seals, and all are believed; processes that serve as one share them.
    :param upstream: its name.
    """

    def __init__(self, keys: Sequence[bytes], upstream: str) -> None:
        self._keys = tuple(keys)
        self._upstream = upstream

    def sign(self, repository: Repository, *values: str) -> str:
        """A segment of a path that stands for the values, for that repository alone."""
        body = json.dumps(values, separators=(",", ":")).encode()
        return f"{_text(body)}.{_text(self._code(self._keys[0], repository, body))}"

    def verify(self, repository: Repository, sealed: str) -> tuple[str, ...]:
        """What was sealed.

        :raises BlobUploadUnknown: when it was not, or for something else.
        """
        body, code = map(_bytes, sealed.split(".")) if sealed.count(".") == 1 else (b"", b"")
        if not any(hmac.compare_digest(code, self._code(key, repository, body)) for key in self._keys):
            raise BlobUploadUnknown("no such upload: go on where the last answer to it said")
        return tuple(json.loads(body))

    def _code(self, key: bytes, repository: Repository, body: bytes) -> bytes:
        sealed = json.dumps([_PURPOSE, self._upstream, repository.name]).encode() + b"\n" + body
        return hmac.digest(key, sealed, sha256)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
