"""The operator's rules for what may be pulled and pushed."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
from zope.interface import implementer

from ..interfaces import Answer, IBody, IRegistry, IWritableRegistry
from ..oci.errors import Denied
from ..oci.pull_rule import PullRule, reference_of
from ..oci.request import Blob, Catalog, InRepository, Manifest, Ping, RegistryRequest, Tag, Tags
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult


class PullRules:
    """The rules for one registry; names are the registry's own.

    :param key: the rules' place in the settings, for messages.
    :param allow: patterns that are allowed; none allows everything.
    :param deny: patterns that are denied, which take precedence.
    :param action: a participle for messages: "pulled" or "pushed".
    """

    def __init__(self, key: str, allow: Iterable[str], deny: Iterable[str], action: str = "pulled") -> None:
        self.key = key
        self._action = action
        self._allow = tuple(map(PullRule.parse, allow))
        self._deny = tuple(map(PullRule.parse, deny))

    def check(self, target: InRepository) -> None:
        """:raises Denied: when the rules do not allow the target."""
        self.check_denied(target)
        if self._allow and not any(rule.may_need(target) for rule in self._allow):
            raise self._denied(target, "'{key}.allow' does not have it")

    def check_denied(self, target: InRepository) -> None:
        """:raises Denied: when the rules deny just this target."""
        if any(rule.covers(target) for rule in self._deny):
            raise self._denied(target, "'{key}.deny' has it")

    def _denied(self, target: InRepository, why: str) -> Denied:
        return Denied(f"{_shown(target)} may not be {self._action} here: {why.format(key=self.key)}")


@implementer(IRegistry)
class RuleFilter:
    """A registry of which clients may pull only what the rules allow."""

    def __init__(self, registry: IRegistry, rules: PullRules) -> None:
        self._registry = registry
        self._rules = rules

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: for content that the rules do not allow: before the registry is asked,
        or when a tag proves to name a denied digest.
        """
        match request.target:
            case Ping():
                return await self._registry.fetch(request)
            case Catalog():
                raise Denied(
                    f"the catalog is not served, because '{self._rules.key}.allow' and"
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


@implementer(IWritableRegistry)
class WriteRuleFilter:
    """A registry to which clients may push only what the rules allow."""

    def __init__(self, writes: IWritableRegistry, rules: PullRules) -> None:
        self._writes = writes
        self._rules = rules

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """:raises Denied: for a target, or a mount's source, that the rules do not allow."""
        target = write.target
        if isinstance(target, UploadTarget | UploadSession):
            for repository in filter(None, (target.repository, write.source)):
                self._rules.check(Blob(repository, write.digest) if write.digest else Tags(repository))
        else:
            self._rules.check(target)
        for tag in write.tags:
            self._rules.check(Manifest(target.repository, tag))
        return await self._writes.write(_without_open_mount(write), body)


def _without_open_mount(write: Write) -> Write:
    """Replace a mount without ``from`` by an upload: the registry would choose any source."""
    if write.source is not None:
        return write
    return evolve(write, query=tuple(pair for pair in write.query if pair[0] != "mount"))


def _shown(target: InRepository) -> str:
    reference = reference_of(target)
    if reference is None:
        return str(target.repository)
    return f"{target.repository}{':' if isinstance(reference, Tag) else '@'}{reference}"
