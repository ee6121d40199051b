"""What the operator lets be pulled, and pushed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, frozen
from zope.interface import implementer

from ..interfaces import Answer, IBody, IRegistry, IWritableRegistry
from ..oci.errors import Denied
from ..oci.reference import Reference, Tag
from ..oci.request import Blob, Catalog, InRepository, Manifest, Ping, Referrers, RegistryRequest, Tags
from ..oci.token import TokenRequest
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult

_WORDS = re.compile(r"\*\*|\*|\?|[^*?]+")
_GLOBS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compiled(glob: str) -> re.Pattern[str]:
    """``*`` and ``?`` do not cross a slash, ``**`` does."""
    return re.compile("".join(_GLOBS.get(word) or re.escape(word) for word in _WORDS.findall(glob)))


@frozen
class PullRule:
    """A pattern of repositories, of their tags, or of their digests."""

    repository: re.Pattern[str]
    tag: re.Pattern[str] | None = None
    digest: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, pattern: str) -> PullRule:
        """From ``repository``, ``repository:tag`` or ``repository@digest``."""
        repository, at, digest = pattern.partition("@")
        if at:
            return cls(_compiled(repository), digest=_compiled(digest))
        repository, colon, tag = pattern.partition(":")
        return cls(_compiled(repository), tag=_compiled(tag) if colon else None)

    @property
    def is_of_all(self) -> bool:
        """Whether it is of all that a repository has."""
        return self.tag is None and self.digest is None

    def is_of(self, target: InRepository) -> bool:
        """Whether it is of that repository, or of something in it."""
        return self.repository.fullmatch(target.repository.name) is not None

    def names(self, target: InRepository) -> bool:
        """Whether it is of just that: all of the repository, that tag, or that digest."""
        if not self.is_of(target) or self.is_of_all:
            return self.is_of(target)
        named = _named(target)
        pattern = self.tag if isinstance(named, Tag) else self.digest
        return named is not None and pattern is not None and pattern.fullmatch(str(named)) is not None

    def leads_to(self, target: InRepository) -> bool:
        """Whether a client needs it to pull what this names.

        What a tag names is asked for by digest, and so are the manifests and blobs that this refers to.
        """
        if not isinstance(target, Manifest):
            return self.is_of(target)
        return self.names(target) or (
            target.digest is not None and self.tag is not None and self.is_of(target)
        )


def _named(target: InRepository) -> Reference | None:
    """What of the repository; None for all of its tags."""
    match target:
        case Manifest():
            return target.reference
        case Blob() | Referrers():
            return target.digest
        case Tags():
            return None


class PullRules:
    """What an operator lets clients have of a registry; names are those by which the registry is asked.

    :param key: where the rules stand in the settings, for messages.
    :param allow: patterns of what may be; everything where there are none.
    :param deny: patterns of what may not be, which stand above the others.
    :param done: what is done there, for messages.
    """

    def __init__(self, key: str, allow: Iterable[str], deny: Iterable[str], done: str = "pulled") -> None:
        self.key = key
        self._done = done
        self._allow = tuple(map(PullRule.parse, allow))
        self._deny = tuple(map(PullRule.parse, deny))

    def check(self, target: InRepository) -> None:
        """:raises Denied: for what may not be had."""
        self.check_denied(target)
        if self._allow and not any(rule.leads_to(target) for rule in self._allow):
            raise self._denied(target, "'{key}.allow' does not have it")

    def check_denied(self, target: InRepository) -> None:
        """:raises Denied: for what may not be had, although something else of that repository may."""
        if any(rule.names(target) for rule in self._deny):
            raise self._denied(target, "'{key}.deny' has it")

    def _denied(self, target: InRepository, why: str) -> Denied:
        return Denied(f"{_shown(target)} may not be {self._done} here: {why.format(key=self.key)}")


@implementer(IRegistry)
class RuleFilter:
    """A registry of which only some may be pulled."""

    def __init__(self, registry: IRegistry, rules: PullRules) -> None:
        self._registry = registry
        self._rules = rules

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``.

        :raises Denied: for what may not be pulled; the registry is not asked, unless only it knows that a
            tag names such a digest.
        """
        match request.target:
            case Ping():
                return await self._registry.fetch(request)
            case Catalog():
                raise Denied(
                    f"what this registry has is not listed here: '{self._rules.key}.allow' and"
                    f" '{self._rules.key}.deny' let only some of it be pulled"
                )
            case target:
                self._rules.check(target)
        answer = await self._registry.fetch(request)
        digest = answer.body.descriptor.digest
        if isinstance(target, Manifest) and digest is not None:
            try:
                self._rules.check_denied(evolve(target, reference=digest))
            except Denied:
                answer.body.discard()
                raise
        return answer

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``; a token for what may not be pulled is of no use here."""
        return await self._registry.token(request)


@implementer(IWritableRegistry)
class WriteRuleFilter:
    """A registry of which only some may be written to: what may be pulled."""

    def __init__(self, writes: IWritableRegistry, rules: PullRules) -> None:
        self._writes = writes
        self._rules = rules

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``.

        :raises Denied: for what may not be written, or mounted from; the registry is not asked.
        """
        target = write.target
        if isinstance(target, UploadTarget | UploadSession):
            for repository in filter(None, (target.repository, write.source)):
                self._rules.check(Blob(repository, write.digest) if write.digest else Tags(repository))
        else:
            self._rules.check(target)
        for tag in write.tags:
            self._rules.check(Manifest(target.repository, tag))
        return await self._writes.write(_from_named_sources(write), body)


def _from_named_sources(write: Write) -> Write:
    """Begin an upload in place of a mount whose source the registry would choose among all repositories."""
    if write.source is not None:
        return write
    return evolve(write, query=tuple(pair for pair in write.query if pair[0] != "mount"))


def _shown(target: InRepository) -> str:
    named = _named(target)
    if named is None:
        return str(target.repository)
    return f"{target.repository}{':' if isinstance(named, Tag) else '@'}{named}"
