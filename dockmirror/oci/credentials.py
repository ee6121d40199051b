"""Credentials of an ``Authorization`` field; they never appear in logs or errors."""

from __future__ import annotations

import base64
import hashlib
import re

from attrs import field, frozen

from .errors import Unsupported

_HEADER = re.compile(r"(?i:bearer) +[!-~]+ *|(?i:basic) +[A-Za-z0-9+/]+={0,2} *")


@frozen
class Credentials:
    """The value of an ``Authorization`` field."""

    header: str = field(repr=False)

    @classmethod
    def parse(cls, header: str) -> Credentials:
        """Parse the credentials of a registry's client: a token, or a user name and a password.

        :raises Unsupported: when they are neither; the message does not repeat them.
        """
        if not _HEADER.fullmatch(header):
            raise Unsupported("malformed Authorization: expected Bearer or Basic", status=400)
        return cls(header)

    @classmethod
    def bearer(cls, token: str) -> Credentials:
        """Return the credentials of a token (RFC 6750, 2.1)."""
        return cls(f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credentials:
        """Return the credentials of a user name and password (RFC 7617)."""
        return cls("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())

    def fingerprint(self) -> str:
        """Return a hash that identifies these credentials in a cache key without revealing them."""
        return hashlib.sha256(self.header.encode("utf-8", "surrogateescape")).hexdigest()

    def is_bearer(self, token: str) -> bool:
        """Return whether these are exactly this token."""
        scheme, _, value = self.header.partition(" ")
        return scheme.lower() == "bearer" and value.strip() == token
