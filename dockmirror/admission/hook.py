"""The question to the operator's policy server: may this digest be served?

The mirror sends one POST with a JSON object, ``Question.as_json``, and a bearer secret.  The server answers
200 with ``{"allow": true, "reason": "...", "valid_for": 3600}``: ``reason`` is for the client that is
refused, ``valid_for`` the seconds for which the verdict is kept, for all clients of the repository.  Any
other answer is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from zope.interface import implementer

from ..body.bodies import collect
from ..interfaces import IDocumentStore
from ..oci.digest import Descriptor, Digest
from ..oci.errors import TimedOut, Unavailable, Unreachable
from ..oci.manifest import ManifestDocument
from ..oci.media import IMAGE_CONFIGS
from ..oci.request import Repository, Requester, Tag
from ..upstream.upstream_client import ResponseBody, describe_failure
from .admit import HookVerdict, Subject
from .image_limits import stated_size
from .policies import FactContext, IFactSource, RepositoryReader
from .tag_facts import KnownParents

MAX_VALID = 30 * 86_400.0
"""The most seconds for which a verdict is kept."""
DEFAULT_VALID = 300.0
_CONFIG_LIMIT = _ANSWER_LIMIT = 1024 * 1024
_REASON_LENGTH = 300


@frozen
class Question:
    """Everything that the policy server is told about a manifest.

    :ivar indexes: the digests of indexes that list it.
    :ivar labels: of the image's configuration; none for an index, which has no configuration.
    :ivar size: see ``stated_size``; None for an index.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str
    indexes: Sequence[str]
    media_type: str | None
    labels: Mapping[str, str]
    size: int | None
    requester: Requester

    def as_json(self) -> bytes:
        requester = {"address": self.requester.address or None, "user": self.requester.user or None}
        return json.dumps(
            {
                "registry": self.registry,
                "repository": self.repository,
                "tag": self.tag,
                "digest": self.digest,
                "indexes": list(self.indexes),
                "media_type": self.media_type,
                "labels": dict(self.labels),
                "size": self.size,
                "requester": requester,
            }
        ).encode()


@frozen
class PolicyServer:
    """Asks the policy server.

    :ivar secret: sent as a bearer token; empty for none.
    """

    url: str
    secret: str
    http: HTTPClient
    clock: IReactorTime
    timeout: float

    async def ask(self, question: Question) -> tuple[HookVerdict, float]:
        """Return the verdict, and the seconds for which it is kept.

        :raises RegistryError: when there is none within the time limit.
        """
        asking = Deferred.fromCoroutine(self._ask(question))
        return await asking.addTimeout(self.timeout, self.clock, _raise_timed_out)

    async def _ask(self, question: Question) -> tuple[HookVerdict, float]:
        headers = Headers({"Content-Type": ["application/json"], "Accept": ["application/json"]})
        if self.secret:
            headers.addRawHeader("Authorization", f"Bearer {self.secret}")
        try:
            response = await self.http.post(
                self.url, data=question.as_json(), headers=headers, allow_redirects=False
            )
        except Exception as error:
            raise Unreachable(f"the policy server does not answer: {describe_failure(error)}") from error
        body = ResponseBody(response.original, Descriptor(), self.clock)
        if response.code != 200:
            body.discard()
            raise Unavailable(f"the policy server answered {response.code}")
        return parse_verdict(await collect(body, _ANSWER_LIMIT))


def _raise_timed_out(_: object, seconds: float) -> NoReturn:
    raise TimedOut(f"the policy server did not answer within {seconds:g} s")


def parse_verdict(data: bytes) -> tuple[HookVerdict, float]:
    """Return the verdict in an answer, and the seconds for which it is kept.

    :raises Unavailable: when it is none.
    """
    try:
        fields = json.loads(data)
        allow, reason, seconds = (
            fields["allow"],
            fields.get("reason", ""),
            fields.get("valid_for", DEFAULT_VALID),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        allow = reason = seconds = None
    if not isinstance(allow, bool) or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise Unavailable("the policy server's answer is no verdict")
    valid = min(max(seconds, 0.0), MAX_VALID) if seconds == seconds else 0.0  # not a number
    return HookVerdict(allow, _one_line(str(reason or ""))), valid


def _one_line(text: str) -> str:
    """Return a text that can stand in a header field: in one line, in ASCII, without quotes."""
    words = " ".join(text.split()).replace('"', "'").replace("\\", "/")
    return "".join(each if " " <= each <= "~" else "?" for each in words)[:_REASON_LENGTH]


@implementer(IFactSource)
@frozen
class HookSource:
    """Gathers verdicts of the policy server, as the client that requests the image.

    They are documents, which all processes keep for the time that the server stated, across restarts.

    :ivar registry: the registry's name in images.
    """

    registry: str
    server: PolicyServer
    parents: KnownParents
    documents: IDocumentStore
    clock: IReactorTime
    fact = "hook"
    setting = "hook"
    is_about_tags = False

    async def gather(self, context: FactContext) -> HookVerdict | None:
        """:raises RegistryError: when the policy server gives no verdict."""
        subject = context.subject
        if subject.digest is None or not context.policy.hook:
            return None
        document = self._document(subject.repository, subject.digest)
        now = self.clock.seconds()
        kept = _parse_kept(await self.documents.read(document), now)
        if kept is not None and self.parents.has_recorded(subject):
            return kept
        manifest = await context.read_manifest()
        await self.parents.record(subject, manifest)
        if kept is not None:
            return kept
        verdict, seconds = await self.server.ask(await self._question(subject, manifest, context.reader))
        kept_until = [now, now + seconds, verdict.allow, verdict.reason]
        await self.documents.write(document, json.dumps(kept_until).encode())
        return verdict

    def _document(self, repository: Repository, digest: Digest) -> str:
        server = Digest.of(self.server.url.encode()).hex[:16]
        return f"verdicts/{server}/{self.registry}/{repository}/{digest.algorithm}/{digest.hex}"

    async def _question(
        self, subject: Subject, manifest: ManifestDocument | None, reader: RepositoryReader
    ) -> Question:
        tag = subject.reference.name if isinstance(subject.reference, Tag) else None
        return Question(
            self.registry,
            str(subject.repository),
            tag,
            str(subject.digest),
            [str(parent.digest) for parent in await self.parents.find(subject)],
            manifest.media_type if manifest else None,
            await _labels(manifest, reader),
            stated_size(manifest) if manifest and not manifest.is_index else None,
            reader.requester,
        )


def _parse_kept(document: bytes | None, now: float) -> HookVerdict | None:
    """Return a kept verdict, or None if its time is over or, as the clock was set back, has not come."""
    try:
        since, until, allow, reason = json.loads(document or b"null")
        return HookVerdict(bool(allow), str(reason)) if since <= now < until else None
    except (ValueError, TypeError):
        return None


async def _labels(manifest: ManifestDocument | None, reader: RepositoryReader) -> dict[str, str]:
    config = manifest.config if manifest else None
    if config is None or config.digest is None or config.media_type not in IMAGE_CONFIGS:
        return {}
    data = await reader.blob(config.digest, _CONFIG_LIMIT)
    try:
        labels: Any = json.loads(data or b"{}")["config"]["Labels"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}
