"""One of the programs that are compared."""

from __future__ import annotations

from attrs import frozen


@frozen
class Peer:
    """A program that serves one repository."""

    name: str
    url: str
    pid: int

    def blob(self, digest: str) -> str:
        """Return the address of a blob."""
        return f"{self.url}/blobs/{digest}"

    def manifest(self, reference: str) -> str:
        """Return the address of a manifest, by tag or by digest."""
        return f"{self.url}/manifests/{reference}"


def repository(name: str) -> str:
    """Return the peer's own repository, which tells the peers apart in the upstream's log."""
    return f"bench/{name.replace(' ', '-')}"
