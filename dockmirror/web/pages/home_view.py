"""The data of the home page, independent of its format."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ...client_config.mirror_address import MirrorAddress, MirroredRegistry
from ...http.access import ClientAddress
from ..recent_requests import RequestRecord
from .languages import Language


@frozen
class HomePageView:
    """The mirror as one client sees it.

    :ivar registry: the registry of the requested virtual host; None on the mirror's own host.
    :ivar requests: the client's recent requests, newest first.
    :ivar now: in seconds since the epoch.
    """

    mirror: MirrorAddress
    registry: MirroredRegistry | None
    client: ClientAddress
    requests: Sequence[RequestRecord]
    now: float

    @property
    def host(self) -> str:
        """The requested host."""
        return self.client.host if self.registry is None else self.registry.host

    @property
    def example(self) -> str:
        """A pull command that works."""
        if self.registry is not None:
            return f"docker pull {self.registry.host}/{self.registry.placeholder}"
        first = self.mirror.registries[0]
        return f"docker pull {self.mirror.by_path(first)}/library/busybox"


def format_size(count: int) -> str:
    """Format a number of bytes."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def format_age(seconds: float) -> str:
    """Format a duration in seconds."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def has_failed(seen: RequestRecord) -> bool:
    """Return whether the client did not get its content; a challenge is part of most pulls."""
    return seen.cut_off or (seen.status >= 400 and seen.status != 401)


def describe_source(seen: RequestRecord, say: Language) -> str:
    """Say where an answer came from, or why there was none."""
    source = say(source_phrase(seen))
    return f"{source}: {seen.reason}" if seen.reason else source


def source_phrase(seen: RequestRecord) -> str:
    """Return the key of the phrase that says where an answer came from."""
    if seen.cut_off:
        return "requests.cut_off"
    if seen.status == 401:
        return "requests.challenged"
    if seen.status >= 400:
        return "requests.failed" if seen.status >= 500 else "requests.refused"
    return "requests.held" if seen.upstream is None else "requests.upstream"
