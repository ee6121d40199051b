"""Credentials as they travel in ``Authorization``; they never show in a log or an error."""

from __future__ import annotations

import base64
import hashlib
import re

from attrs import field, frozen

from .errors import Unsupported

_HEADER = re.compile(r"(?i:bearer) +[!-~]+ *|(?i:basic) +[A-Za-z0-9+/]+={0,2} *")


@frozen
class Credentials:
    """The value of one ``Authorization`` header."""

    header: str = field(repr=False)

    @classmethod
    def parse(cls, header: str) -> Credentials:
        """Those that a registry's client may bring: a token, or a name and a password.

        :raises Unsupported: when the header is neither; it is not repeated.
        """
        if not _HEADER.fullmatch(header):
            raise Unsupported("malformed request: expected Authorization by Bearer or by Basic", status=400)
        return cls(header)

    @classmethod
    def bearer(cls, token: str) -> Credentials:
        """A token's (RFC 6750, 2.1)."""
        return cls(f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credentials:
        """A name's and a password's (RFC 7617)."""
        return cls("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())

    def fingerprint(self) -> str:
        """What may stand in a key for these credentials: a hash, which gives nothing away."""
        return hashlib.sha256(self.header.encode("utf-8", "surrogateescape")).hexdigest()

    def is_bearer(self, token: str) -> bool:
        """Whether this is that very token."""
        scheme, _, value = self.header.partition(" ")
        return scheme.lower() == "bearer" and value.strip() == token
