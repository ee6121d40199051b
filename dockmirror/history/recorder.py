"""Records the requests of one process as parts of pulls; a writer puts them into the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from math import inf

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from ..body.bodies import BytesBody, Tee
from ..http.server_request import ServerRequest
from ..interfaces import Answer
from ..oci.digest import Digest
from ..oci.manifest import MANIFEST_LIMIT
from ..oci.request import Blob, Manifest, Reference, Tag
from ..system.networks import ClientAddress
from .part_requests import PartRequest, RunningPull
from .pull_table import ClientRecord, Named, PullTable, hash_reference, read_names
from .tracker import (
    CACHED,
    JOIN_SECONDS,
    find_failed_pull,
    find_pull,
    is_ignored,
    make_number,
    saves_pull,
)

_FRESH_SECONDS = 5.0
"""Seconds for which a process trusts its own memory of a client's only pull."""
assert _FRESH_SECONDS < JOIN_SECONDS
_NAMES_SECONDS = 300.0
"""Seconds after which the names in a manifest are put into the table again: others may have evicted them."""
_MAX_MEMORY = 4096
_ClientKey = tuple[int | None, str | None, str, str]
"""A client's address and user, the registry, and the repository."""
_REASON_LENGTH = 300
_UNNAMED = Named(False, "")
_CLIENT_LEFT = "the client closed the connection before the end"


@define
class PullRecorder:
    """Assigns the requests of clients to pulls, and hands over once per second what has become of them.

    It adds nothing up, to cost the reactor little: ``add_up`` does, in the thread that writes the history.

    :ivar process: tells the processes of a mirror apart.
    :ivar take: receives the requests that have ended, and the state of those that run.
    :ivar begun: is called when a request begins; ``flush`` must be called some time after it.
    """

    _table: PullTable
    _clock: IReactorTime
    process: int = field(factory=os.getpid)
    take: Callable[[Sequence[PartRequest]], None] = lambda _: None
    begun: Callable[[], None] = lambda: None
    _running: dict[int, tuple[ServerRequest, PartRequest]] = field(factory=dict)
    _ended: list[PartRequest] = field(factory=list)
    _touched: list[RunningPull] = field(factory=list)
    _clients: dict[_ClientKey, ClientRecord] = field(factory=dict)
    _pulls: dict[int, RunningPull] = field(factory=dict)
    _names: dict[int, tuple[float, Mapping[int, Named]]] = field(factory=dict)
    _count: count[int] = field(factory=count)

    def begin(self, request: ServerRequest, registry: str, target: Manifest | Blob, head: bool) -> None:
        """Assign a client's request to a pull, before the registry is asked."""
        client = request.admitted_client
        if client is None:
            return
        now, address = self._clock.seconds(), client.address
        is_manifest = isinstance(target, Manifest)
        reference: Reference = target.reference if isinstance(target, Manifest) else target.digest
        repository = target.repository.name
        key = (int(address) if address else None, client.user, registry, repository)
        record = self._clients.get(key) or self._add_client(key, now)
        if (
            record.has_several
            or self._table.head(record) != record.head
            or not 0 <= now - record.read_at < _FRESH_SECONDS
        ):
            self._table.read(record, now)
        name, number, is_new = hash_reference(reference), record.number, False
        named = record.contents.get(name)
        if named is None and name not in record.manifests:
            number, named = self._find(record, name, now) if record.members else (0, None)
            is_new = is_manifest and not number
            if is_new:
                number = make_number(now, self.process, next(self._count))
        pull = self._pulls.get(number) or self._add_pull(number, record, client, registry, repository)
        is_first = is_new
        if is_manifest and named is None and not (is_new or (pull.digest and pull.reference)):
            is_first = self._may_begin_with(pull, name)
        if (is_first and not pull.reference) or isinstance(reference, Tag):
            pull.reference = str(reference)
        is_layer, platform = named or _UNNAMED
        if platform and not pull.platform:
            pull.platform = platform
        if number:
            request.join_pull(pull.id)
        part = PartRequest(
            pull, reference, name, is_manifest, head, is_first, is_new, is_layer, now, not head
        )  # fmt: skip
        self._running[id(request)] = request, part
        self.begun()

    def _find(self, record: ClientRecord, name: int, now: float) -> tuple[int, Named | None]:
        """Return the number of the pull that a request joins, or 0, and what a manifest of it says."""
        member = find_pull(record.members, name, self._find_named, now)
        if member is None or member[1] == name:
            return member[0] if member else 0, None
        number, manifest = member[:2]
        if manifest in self._names:
            record.expect(number)
            record.contents = self._names[manifest][1]
        return number, self._find_named(manifest, name) or _UNNAMED

    def _add_client(self, key: _ClientKey, now: float) -> ClientRecord:
        if len(self._clients) >= _MAX_MEMORY:
            self._clients.clear()  # they are found in the table again
        record = self._clients[key] = self._table.open(key, now)
        return record

    def _add_pull(
        self, number: int, record: ClientRecord, client: ClientAddress, registry: str, repository: str
    ) -> RunningPull:
        pull = RunningPull(number, str(number), record, client, registry, repository)
        if number:
            if len(self._pulls) >= _MAX_MEMORY:
                self._pulls.clear()
            self._pulls[number] = pull
        return pull

    def _find_named(self, manifest: int, content: int) -> Named | None:
        """Return what a manifest says of a content; None if it does not name it."""
        known = self._names.get(manifest)
        return self._table.named(manifest, content) if known is None else known[1].get(content)

    def _may_begin_with(self, pull: RunningPull, name: int) -> bool:
        """Return whether none of a pull's other manifests names this one."""
        return not any(
            number == pull.number and other != name and self._find_named(other, name)
            for number, other, _, _ in pull.record.members
        )

    def answered(self, request: ServerRequest, answer: Answer, is_limited: Callable[[], bool]) -> Answer:
        """Note the registry's answer, and return it.

        :param is_limited: tells if the upstream limits pulls.
        """
        running = self._running.get(id(request))
        if running is None:
            return answer
        part = running[1]
        part.is_answered = True
        if answer.cache is not None:
            result = answer.cache.result
            part.is_cached = result in CACHED
            part.saved_requests = int(result.is_hit)
            if part.is_manifest and not part.is_head:
                media_type = answer.body.descriptor.media_type
                part.saved_pulls = int(saves_pull(result, media_type) and is_limited())
        if not part.is_manifest or answer.status in (301, 307):
            return answer
        digest = answer.body.descriptor.digest
        if digest is not None:
            self._add_manifest(part, digest)
        if part.is_head or answer.status != 200 or (digest and self._knows_names(part)):
            return answer
        add = partial(self._add_names, part, digest)
        if not isinstance(answer.body, BytesBody):
            return evolve(answer, body=Tee(answer.body, MANIFEST_LIMIT, add))
        add(answer.body.data)
        return answer

    def _add_manifest(self, part: PartRequest, digest: Digest) -> None:
        """Let a manifest belong to its pull; a HEAD does not prolong the pull that it joins."""
        pull, record = part.pull, part.pull.record
        part.manifest = hash_reference(digest)
        if record.manifests.get(part.name) == part.manifest:
            return  # the table knows it
        if part.is_first and not pull.digest:
            pull.digest = str(digest)
        if part.manifest != part.name and part.name not in self._names:
            self._remember(part.name, inf, {})  # a tag names nothing
        names, last = {part.name, part.manifest}, part.reported
        if part.is_head and not part.is_new:
            self._table.read(record, last)
            names = {part.manifest}
            last = max((each[2] for each in record.members if each[0] == pull.number), default=last)
        if part.is_new or not names <= record.names(pull.number):
            self._table.update(record, pull.number, last, names)

    def _remember(self, manifest: int, now: float, names: Mapping[int, Named]) -> None:
        if len(self._names) >= _MAX_MEMORY:
            self._names.clear()
        self._names[manifest] = now, names

    def _knows_names(self, part: PartRequest) -> bool:
        known = self._names.get(part.manifest)
        return known is not None and part.reported - known[0] < _NAMES_SECONDS

    def _add_names(self, part: PartRequest, digest: Digest | None, data: bytes) -> None:
        """Let the contents that a manifest names join its pull."""
        if digest is None:
            self._add_manifest(part, Digest.of(data))
        if not self._knows_names(part):
            names = read_names(data)
            self._remember(part.manifest, part.reported, names)
            self._table.add_named(part.manifest, names)

    def end(self, request: ServerRequest) -> None:
        """Note a request that has ended; call once for each, before the access log."""
        running = self._running.pop(id(request), None)
        if running is None:
            return
        part, now = running[1], self._clock.seconds()
        is_failed = request.code >= 400 or request.is_cut_off
        if is_failed and not request.is_cut_off and is_ignored(request.code, str(part.reference)):
            self._ignore(part, now)
            return
        if is_failed:
            part.reason = " ".join((request.reason or _CLIENT_LEFT).split())[:_REASON_LENGTH]
            if part.is_manifest and not part.is_head:
                self._leave_served(request, part, now)
        _measure(request, part, now)
        part.ended = now
        self._ended.append(part)
        if part.pull.number and not part.is_head:
            self._touch(part, now)

    def _ignore(self, part: PartRequest, now: float) -> None:
        """Let a request be no part of its pull; the next request has the pull's id."""
        if not part.is_head:
            part.gets -= 1
        part.is_answered = False
        if part.gets or part.saved_requests:
            self._ended.append(part)
        if part.is_new:
            self._table.update(part.pull.record, part.pull.number, now, (part.name,))

    def _leave_served(self, request: ServerRequest, part: PartRequest, now: float) -> None:
        """Let a failed request leave a pull that has served its manifest.

        The client has the image of that pull; failed requests for the manifest that follow are another pull.
        """
        pull = part.pull
        self._table.read(pull.record, now)
        if part.name not in pull.record.served(pull.number):
            return
        if not part.gets:
            self._ended.append(evolve(part, gets=-1, is_answered=False, saved_requests=0, saved_pulls=0))
        failed = find_failed_pull(pull.record.members, part.name, now)
        number = make_number(now, self.process, next(self._count)) if failed is None else failed[0]
        left = self._pulls.get(number)
        if left is None:
            left = self._add_pull(number, pull.record, pull.client, pull.registry, pull.repository)
            left.reference = str(part.reference)
        part.pull, part.gets, part.manifest = left, 1, 0
        request.join_pull(left.id)

    def _touch(self, part: PartRequest, now: float) -> None:
        """Note when a pull's last byte was sent, and what it served; the table may learn the time later."""
        pull, record = part.pull, part.pull.record
        if part.is_manifest and (part.reason or record.manifests.get(part.name) != part.manifest):
            self._serve(part, now)
        elif record.has_several:
            self._table.update(record, pull.number, now)  # it is compared with the others
        elif not pull.touched:
            self._touched.append(pull)
            pull.touched = now
        if pull.touched:
            pull.touched = now

    def _serve(self, part: PartRequest, now: float) -> None:
        """Let a pull have served a manifest, unless it has failed."""
        pull, record = part.pull, part.pull.record
        names = part.name, part.manifest or part.name
        self._table.update(record, pull.number, now, names, not part.reason)
        if not part.reason:
            record.expect(pull.number)
            record.manifests.update(dict.fromkeys(names, part.manifest))

    @property
    def is_busy(self) -> bool:
        """Requests run, or wait for a flush."""
        return bool(self._running or self._ended)

    def flush(self) -> None:
        """Hand over what has happened since the last call, running transfers included."""
        now = self._clock.seconds()
        touched, self._touched = self._touched, []
        for pull in touched:
            self._table.update(pull.record, pull.number, pull.touched)
            pull.touched = 0.0
        for request, part in self._running.values():
            if part.pull.number and not part.is_head:
                _measure(request, part, now)
                self._ended.append(evolve(part))
                part.gets = part.bytes = part.saved_requests = part.saved_pulls = 0
                part.seconds = 0.0
                self._table.update(part.pull.record, part.pull.number, now)
        if self._ended:
            ended, self._ended = self._ended, []
            self.take(ended)


def _measure(request: ServerRequest, part: PartRequest, now: float) -> None:
    """Note the bytes that were sent since the last report."""
    if request.code in (200, 206):
        part.bytes, part.sent = request.sentLength - part.sent, request.sentLength
        if not part.is_cached:
            part.seconds = max(0.0, now - part.reported)
    part.reported = now
