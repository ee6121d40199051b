"""Registries that record which digests an upstream's tags name, from each of its answers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import Answer, IBody, IRegistry, ITagHistory, IUpstream, IWritableRegistry
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.media import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, accepts
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from ..oci.token import TokenRequest
from ..oci.write import Write, WriteResult
from ..pullthrough.write_through import tags_set

_KINDS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
_log = Logger()


@frozen
class TagRecorder:
    """Records sightings of one upstream's tags.

    :ivar upstream: its name in the settings.
    """

    upstream: str
    history: ITagHistory
    clock: IReactorTime

    async def record(self, repository: Repository, tag: Tag, digest: Digest, date: str | None = None) -> None:
        """Record a sighting; one that cannot be written admits nothing.

        :param date: the upstream's ``Date``: a clock of ours that is ahead makes nothing older.
        """
        seen = min(self.clock.seconds(), parse_date(date))
        try:
            await self.history.record(self.upstream, repository, tag, digest, seen)
        except OSError as error:
            _log.error(
                "{repository}:{tag}: cannot record what the tag names: {error}",
                repository=str(repository), tag=str(tag), error=str(error),
            )  # fmt: skip


@implementer(IRegistry)
class SightingRegistry:
    """Records what the registry's answers say about tags."""

    def __init__(self, registry: IRegistry, recorder: TagRecorder) -> None:
        self._registry = registry
        self._recorder = recorder

    async def fetch(self, request: RegistryRequest) -> Answer:
        answer = await self._registry.fetch(request)
        target = request.target
        if isinstance(target, Manifest) and isinstance(target.reference, Tag):
            digest = find_sighted_digest(request, answer)
            if digest is not None:
                await self._recorder.record(target.repository, target.reference, digest, answer.date)
        return answer


@implementer(IUpstream)
class SightingUpstream(SightingRegistry):
    """The same for a registry with a token service."""

    def __init__(self, upstream: IUpstream, recorder: TagRecorder) -> None:
        super().__init__(upstream, recorder)
        self._upstream = upstream

    async def token(self, request: TokenRequest) -> Answer:
        return await self._upstream.token(request)


@implementer(IWritableRegistry)
class PushSightings:
    """Records the tags that are pushed through the mirror."""

    def __init__(self, writes: IWritableRegistry, recorder: TagRecorder) -> None:
        self._writes = writes
        self._recorder = recorder

    async def write(self, write: Write, body: IBody) -> WriteResult:
        result = await self._writes.write(write, body)
        target = write.target
        if write.method == "PUT" and isinstance(target, Manifest) and result.status == 201:
            digest = target.digest or _parse_digest(dict(result.headers).get("Docker-Content-Digest"))
            if digest is not None:
                for tag in tags_set(write, result):
                    await self._recorder.record(target.repository, tag, digest)
        return result


def find_sighted_digest(request: RegistryRequest, answer: Answer) -> Digest | None:
    """Return the digest that an answer of the upstream proves a tag to name, or None.

    Clients that do not accept all kinds of manifests may be given another one than the tag names.
    """
    is_complete = all(accepts(request.accept, kind) for kind in _KINDS)
    if answer.from_other_host or not answer.consents or not is_complete or not request.accept:
        return None
    if answer.body.descriptor.digest is not None or answer.status != 304:
        return answer.body.descriptor.digest
    return _parse_digest((request.if_none_match or "").removeprefix("W/").strip('"'))


def parse_date(text: str | None) -> float:
    """Return a ``Date`` in seconds since the epoch; infinite if there is none, or it is malformed."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else float("inf")
    except (ValueError, OverflowError):
        return float("inf")


def _parse_digest(text: str | None) -> Digest | None:
    try:
        return Digest.parse(text or "")
    except DigestInvalid:
        return None
