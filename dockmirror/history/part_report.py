"""Reports of what clients requested, from the recorder of a process to the writer of the file."""

from __future__ import annotations

from attrs import define

from .tracker import PartState


@define(eq=False)
class PartReport:
    """The requests for a manifest or blob of a pull since the last report.

    :ivar number: of the pull; 0 for a blob without one, which counts in sums only.
    :ivar is_first: True if the pull begins with it.
    :ivar state: None if it was not requested with a GET.
    :ivar gets: requests other than HEADs; a pull without any is none.
    """

    number: int
    name: int
    client: str
    user: str
    host: str
    registry: str
    repository: str
    reference: str
    is_first: bool = False
    digest: str = ""
    platform: str = ""
    state: PartState | None = None
    last: float = 0.0
    gets: int = 0
    saved_requests: int = 0
    saved_pulls: int = 0
    cached_bytes: int = 0
    upstream_bytes: int = 0
    upstream_seconds: float = 0.0
