"""Records the requests of one process as parts of pulls; a writer puts them into the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import count

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from ..body.in_memory import BytesBody
from ..body.wrappers import Tee
from ..http.access import ClientAddress
from ..http.server_request import ServerRequest
from ..interfaces import Answer
from ..oci.digest import Digest
from ..oci.reference import Tag
from ..oci.request import Blob, Manifest, RegistryRequest
from ..system.networks import normalize_host
from .pull_table import Named, PullTable, hash_text, read_names
from .tracker import (
    CACHED,
    JOIN_SECONDS,
    REPEAT_SECONDS,
    AddressDetail,
    PartState,
    began,
    find_pull,
    is_ignored,
    make_number,
    saves_pull,
    stored_client,
)

_RECENT_SECONDS = 5.0
"""Seconds for which a process trusts its own memory of a pull; requests in between leave the table alone."""
_NAMES_SECONDS = 300.0
"""Seconds after which the names in a manifest are put into the table again: others may have evicted them."""
_MAX_MEMORY = 8192
_MANIFEST_LIMIT = 4 * 1024 * 1024
_REASON_LENGTH = 300
_UNNAMED = Named(False, "")
_CLIENT_LEFT = "the client closed the connection before the end"


@define
class PartReport:
    """The requests for a manifest or blob of a pull since the last report.

    :ivar number: of the pull; 0 for a blob without one, which counts in sums only.
    :ivar is_first: whether the pull begins with it.
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


@define(eq=False)
class _Part:
    """A running request for a manifest or blob."""

    number: int
    name: int
    key: int
    client: ClientAddress
    registry: str
    target: Blob | Manifest
    head: bool
    started: float
    is_first: bool = False
    is_new: bool = False
    is_recent: bool = False
    is_cached: bool = False
    is_answered: bool = False
    is_counted: bool = False
    named: Named = _UNNAMED
    digest: str = ""
    reported_bytes: int = 0
    reported: float = 0.0

    @property
    def reference(self) -> str:
        return str(self.target.reference if isinstance(self.target, Manifest) else self.target.digest)


@frozen
class _Recent:
    """A pull that this process has seen lately."""

    number: int
    touched: float


def _take_nothing(_: Sequence[PartReport]) -> None:
    """Drop the reports: no file was opened."""


@define
class PullRecorder:
    """Assigns the requests of clients to pulls, and reports them once per second.

    :ivar process: tells the processes of a mirror apart.
    :ivar take: receives the reports.
    """

    _table: PullTable
    _clock: IReactorTime
    _detail: AddressDetail = "full"
    process: int = field(factory=os.getpid)
    take: Callable[[Sequence[PartReport]], None] = _take_nothing
    _running: dict[ServerRequest, _Part] = field(factory=dict)
    _reports: dict[tuple[int, int], PartReport] = field(factory=dict)
    _recent: dict[tuple[int, int], _Recent] = field(factory=dict)
    _named: dict[int, float] = field(factory=dict)
    _count: count[int] = field(factory=count)

    def begin(self, request: ServerRequest, registry: str, read: RegistryRequest) -> None:
        """Assign a client's request to a pull, before the registry is asked."""
        target, client, now = read.target, request.admitted_client, self._clock.seconds()
        if client is None or not isinstance(target, Blob | Manifest):
            return
        is_manifest = isinstance(target, Manifest)
        name = hash_text(str(target.reference if isinstance(target, Manifest) else target.digest))
        key = hash_text(f"{client.address} {client.user} {registry}/{target.repository.name}")
        part = _Part(0, name, key, client, registry, target, read.head, now, reported=now)
        recent = self._recent.get((key, name))
        if (
            recent is not None
            and 0 <= now - recent.touched < _RECENT_SECONDS
            and now - began(recent.number) < REPEAT_SECONDS
        ):
            part.number, part.is_first, part.is_recent = recent.number, is_manifest, True
        else:
            self._join(part, now, is_manifest)
        if part.number:
            request.pull_id = str(part.number)
        self._running[request] = part

    def _join(self, part: _Part, now: float, is_manifest: bool) -> None:
        members = self._table.members(part.key)

        def is_named_by(manifest: int) -> bool:
            named = self._table.named(manifest, part.name)
            if named is not None:
                part.named = named
            return named is not None

        number = find_pull(members, part.name, is_named_by, now) if members else None
        if number is not None:
            part.number = number
            part.is_first = any(each.name == part.name for each in members if each.number == number)
        elif is_manifest:
            part.number = make_number(now, self.process, next(self._count))
            part.is_first = part.is_new = True

    def answered(self, request: ServerRequest, answer: Answer, is_limited: bool) -> Answer:
        """Note the registry's answer, and return it.

        :param is_limited: whether the upstream limits pulls.
        """
        part = self._running.get(request)
        if part is None:
            return answer
        part.is_answered = True
        result, descriptor = answer.cache.result if answer.cache else None, answer.body.descriptor
        part.is_cached = result in CACHED
        report = self._report(part)
        if result is not None:
            report.saved_requests += result.is_hit
            if not part.head and isinstance(part.target, Manifest):
                report.saved_pulls += saves_pull(result, descriptor.media_type, is_limited)
        if not isinstance(part.target, Manifest):
            return answer
        if descriptor.digest is not None:
            part.digest = str(descriptor.digest)
        if part.is_recent or answer.status in (301, 307):
            return answer
        now = self._clock.seconds()
        if part.is_new or not part.head:
            self._touch(part, now, part.name)
            if isinstance(part.target.reference, Tag) and part.digest:
                self._table.touch(part.key, part.number, now, hash_text(part.digest))
        if part.head or answer.status != 200:
            return answer
        if isinstance(answer.body, BytesBody):
            self._add_names(part, answer.body.data)
            return answer
        return evolve(
            answer, body=Tee(answer.body, _MANIFEST_LIMIT, lambda data: self._add_names(part, data))
        )

    def _add_names(self, part: _Part, data: bytes) -> None:
        """Let the contents that a manifest names join its pull."""
        part.digest = part.digest or str(Digest.of(data))
        manifest, now = hash_text(part.digest), self._clock.seconds()
        if now - self._named.get(manifest, 0.0) >= _NAMES_SECONDS:
            _bound(self._named)
            self._named[manifest] = now
            self._table.add_named(manifest, read_names(data))

    def end(self, request: ServerRequest) -> None:
        """Report a request that has ended; call once for each."""
        part = self._running.pop(request, None)
        if part is None:
            return
        now = self._clock.seconds()
        if is_ignored(request.code, part.reference) and not request.is_cut_off:
            if part.is_counted:
                self._report(part).gets -= 1
            if part.is_new:
                self._table.touch(part.key, part.number, now, part.name)
            return
        report = self._progress(part, request, now)
        if part.head:
            return
        reason = ""
        if request.code >= 400 or request.is_cut_off:
            reason = " ".join((request.reason or _CLIENT_LEFT).split())[:_REASON_LENGTH]
        report.state = _later(report.state, PartState(now, part.named.is_layer, part.is_cached, reason))
        if part.number and not part.is_recent:
            self._touch(part, now, part.name if isinstance(part.target, Manifest) else None)

    def flush(self) -> None:
        """Report what has happened since the last call, running transfers included."""
        now = self._clock.seconds()
        for request, part in self._running.items():
            if not part.head and part.number:
                report = self._progress(part, request, now)
                if report.state is None and part.is_answered:
                    report.state = PartState(now, part.named.is_layer, part.is_cached)
                self._table.touch(part.key, part.number, now)
        if self._reports:
            reports, self._reports = self._reports, {}
            self.take(list(reports.values()))

    def _progress(self, part: _Part, request: ServerRequest, now: float) -> PartReport:
        """Report the bytes that were sent since the last report."""
        report = self._report(part)
        report.last = max(report.last, now)
        if part.digest and part.is_first:
            report.digest = part.digest
        if part.head:
            return report
        if not part.is_counted:
            part.is_counted, report.gets = True, report.gets + 1
        if request.code in (200, 206):
            sent, part.reported_bytes = request.sentLength - part.reported_bytes, request.sentLength
            if part.is_cached:
                report.cached_bytes += sent
            else:
                report.upstream_bytes += sent
                report.upstream_seconds += max(0.0, now - part.reported)
        part.reported = now
        return report

    def _report(self, part: _Part) -> PartReport:
        key = (part.number, part.name) if part.number else (part.key, 0)
        report = self._reports.get(key)
        if report is None:
            report = self._reports[key] = PartReport(
                part.number, part.name, stored_client(part.client.address, self._detail),
                part.client.user or "", normalize_host(part.client.host), part.registry,
                part.target.repository.name, part.reference, part.is_first, platform=part.named.platform,
            )  # fmt: skip
        return report

    def _touch(self, part: _Part, now: float, name: int | None) -> None:
        self._table.touch(part.key, part.number, now, name)
        # Another process may have begun a later pull by a tag that names the same digest.
        if name is not None and isinstance(part.target, Manifest) and isinstance(part.target.reference, Tag):
            _bound(self._recent)
            self._recent[part.key, name] = _Recent(part.number, now)


def _later(state: PartState | None, later: PartState) -> PartState:
    return later if state is None else state.then(later)


def _bound(memory: dict[int, float] | dict[tuple[int, int], _Recent]) -> None:
    """Forget everything when there is too much: it is found in the table again."""
    if len(memory) >= _MAX_MEMORY:
        memory.clear()


assert _RECENT_SECONDS < JOIN_SECONDS
