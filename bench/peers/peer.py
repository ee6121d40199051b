"""One of those that are measured."""

from __future__ import annotations

from attrs import frozen


@frozen
class Peer:
    """A program that serves one repository.

    :ivar url: the repository's, in front of ``/blobs/`` and ``/manifests/``.
    :ivar pid: its process, of which others may be children.
    """

    name: str
    url: str
    pid: int

    def blob(self, digest: str) -> str:
        """The address of a blob."""
        return f"{self.url}/blobs/{digest}"

    def manifest(self, reference: str) -> str:
        """The address of a manifest, by tag or by digest."""
        return f"{self.url}/manifests/{reference}"


def repository(name: str) -> str:
    """Each has one of its own, so that the upstream's log tells who has asked."""
    return f"bench/{name.replace(' ', '-')}"
