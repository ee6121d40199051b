"""Which certificate a client is shown."""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL.SSL import Context

from .certificate_chain import CertificateChain


class SniSelector:
    """Chooses by the name that a client asks for (SNI, RFC 6066, section 3).

    A certificate for that very name stands before one for the wildcard above it, and of several for the same
    name stands the one that ends last.  Who asks for no name, or for one that no certificate is for, is shown
    the one that is for ``domain``, or the first where there is none.

    :param served: at least one.
    :ivar context: with which a connection begins; it goes over to another's by itself.
    """

    def __init__(self, served: Sequence[CertificateChain], domain: str) -> None:
        self.served = tuple(served)
        self._by_name = {name: each for each in sorted(served, key=lambda it: it.ends) for name in each.names}
        self._contexts = {each: each.context() for each in served}
        self.context = (self._find(domain) or self.served[0]).context(self._for_server_name)

    def _find(self, host: str) -> CertificateChain | None:
        return self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2])

    def _for_server_name(self, name: bytes | None) -> Context | None:
        """None where the connection goes on as it began."""
        found = self._find((name or b"").decode("ascii", "replace").lower().removesuffix("."))
        return self._contexts[found] if found else None
