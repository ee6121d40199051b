"""Which token services may be given credentials.

The mistake to avoid is CVE-2026-33540: a registry, or who speaks for it, names a realm of its own
choice and is sent the password.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from ..oci.errors import Denied

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, in one spelling (RFC 6454, 4)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)


@frozen
class TrustedRealms:
    """The token services of one upstream.

    :ivar url: the upstream's own; its host is trusted.
    :ivar named: origins of further ones, by the built-in table or by the operator.
    """

    url: str
    named: tuple[str, ...] = field(default=())

    def check(self, realm: str) -> None:
        """:raises Denied: when credentials must not go to that realm, saying why and how to allow it."""
        parts = urlsplit(realm)
        if not self._encrypted_enough(parts):
            raise Denied(f"credentials are not sent to {_shown(parts)}: it is not https as the upstream is")
        if origin(realm)[1] != origin(self.url)[1] and origin(realm) not in map(origin, self.named):
            raise Denied(
                f"credentials are not sent to {_shown(parts)}: that token service is not on the upstream's"
                " own host; the operator may name it in 'realms'"
            )

    def _encrypted_enough(self, realm: SplitResult) -> bool:
        return realm.scheme == "https" or (realm.scheme == "http" and urlsplit(self.url).scheme == "http")


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
