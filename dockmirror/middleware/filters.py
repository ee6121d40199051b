"""Registries that refuse requests: by the operator's rules, by budgets of networks, and all logins.

On the mirror's own host, clients keep one login, and would send it to whichever registry an image's name
picks.  So clients are not challenged there, and no credentials are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from attrs import evolve, frozen
from zope.interface import implementer

from ..body.bodies import json_body
from ..http.server_request import ServerRequest
from ..http.usage import LABEL_SIZE, LimitTerms, UsageMeter
from ..interfaces import Answer, IBody, IRegistry, IUpstream, IWritableRegistry
from ..oci.errors import Denied, TooManyRequests, Unauthorized
from ..oci.media import DOCKER_LIST, OCI_INDEX
from ..oci.pull_rule import PullRule, reference_of
from ..oci.request import Blob, Catalog, InRepository, Manifest, Ping, RegistryRequest, Tag, Tags
from ..oci.token import TokenRequest
from ..oci.write import UploadSession, UploadTarget, Write, WriteResult
from ..system.networks import Network, client_network, pack_address, port_suffix
from ..system.shared_table import hash_key

_IDENTIFIER_SIZE = LABEL_SIZE - 16
"""The rest of a label is an address."""


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


def budget_identifier(pattern: str, of_each_image: bool, number: int) -> bytes:
    """Return eight bytes by which the counters know a budget, also after the settings were read again.

    :param of_each_image: True if each image is counted by itself, and not all of them together.
    :param number: counts the budgets before it that are alike in both.
    """
    return hash_key(f"{number} {of_each_image} {pattern}".encode()).to_bytes(_IDENTIFIER_SIZE)


def split_label(label: bytes) -> tuple[bytes, bytes]:
    """Return the budget's identifier and the packed first address of the network from a key's label."""
    return label[:_IDENTIFIER_SIZE], label[_IDENTIFIER_SIZE:]


@frozen
class ImageBudget:
    """A limit for the images that match a pattern.

    :ivar identifier: see ``budget_identifier``.
    :ivar pattern: the pattern as in the settings.
    :ivar of_each_image: True if each image is counted by itself, and not all of them together.
    :ivar meter: measures the usage of each network.
    """

    identifier: bytes
    pattern: str
    rule: PullRule
    of_each_image: bool
    meter: UsageMeter

    def applies_to(self, image: str) -> bool:
        return self.rule.repository.fullmatch(image) is not None

    def key(self, image: str, network: Network) -> bytes:
        """Return the key of what a network uses of an image; its label is that of ``split_label``."""
        counted = image.encode() if self.of_each_image else b""
        return self.identifier + pack_address(network.network_address) + counted

    def subject(self, image: str) -> str:
        """Return the subject of the limit, for messages."""
        return f"{image if self.of_each_image else f'images like {self.pattern}'} from your network"


@frozen
class Budgets:
    """The budgets of the mirror.

    :ivar count: counts a request that a budget rejects.
    """

    terms: LimitTerms
    budgets: Sequence[ImageBudget]
    count: Callable[[ImageBudget], object]


NO_BUDGETS = Budgets(LimitTerms(), (), lambda _: None)


@implementer(IRegistry)
class BudgetFilter:
    """Rejects requests of client networks that have used up a budget, until the window ends.

    A pull is a successful GET of an image's manifest; an index is not an image.  Where pulls are used up,
    blobs are still served: a pull that has begun may be completed.  Requests for an image count if it exists.

    :param registry_name: the name of the registry, with which the patterns begin.
    """

    def __init__(self, registry: IRegistry, registry_name: str, budgets: Budgets) -> None:
        self._registry = registry
        self._name = registry_name
        self._budgets = budgets

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises TooManyRequests: with the seconds left of the window."""
        received, target = request.received, request.target
        if not isinstance(received, ServerRequest) or not isinstance(target, Blob | Manifest):
            return await self._registry.fetch(request)
        address = self._budgets.terms.limited_address(received)
        if address is None:
            return await self._registry.fetch(request)
        image, network = f"{self._name}/{target.repository}", client_network(address)
        used = [(each, each.key(image, network)) for each in self._budgets.budgets if each.applies_to(image)]
        for budget, key in used:
            seconds = budget.meter.remaining_wait(key, is_pull=isinstance(target, Manifest))
            if seconds is not None:
                raise self._refuse(budget, image, seconds)
        with ExitStack() as reserved:
            for budget, key in used:
                if budget.of_each_image:
                    reserved.enter_context(budget.meter.reserved(key))
                else:
                    budget.meter.begin(key, received)
            answer = await self._registry.fetch(request)
        for budget, key in used:
            if budget.of_each_image:  # not before: a name that a client makes up would take another's room
                budget.meter.begin(key, received)
        if isinstance(target, Manifest) and _is_pull(request, answer):
            for budget, key in used:
                seconds = budget.meter.add_pull(key)
                if seconds is not None:  # others that were fetched meanwhile have used up the limit
                    answer.body.discard()
                    raise self._refuse(budget, image, seconds)
        return answer

    def _refuse(self, budget: ImageBudget, image: str, seconds: int) -> TooManyRequests:
        self._budgets.count(budget)
        return self._budgets.terms.refusal(budget.subject(image), seconds)


def _is_pull(request: RegistryRequest, answer: Answer) -> bool:
    media_type = (answer.body.descriptor.media_type or "").partition(";")[0]
    return not request.head and answer.status == 200 and media_type not in (OCI_INDEX, DOCKER_LIST)


class _LoginFilter:
    """Accepts no login, challenges no client, and passes no credentials on.

    :param no_logins: returns the answer to a login, by the port that the client used, such as ``:8080``.
    :param not_given: returns the answer to a request for content that the registry does not give.
    """

    def __init__(
        self, registry: IRegistry, no_logins: Callable[[str], str], not_given: Callable[[str], str]
    ) -> None:
        self._registry = registry
        self._no_logins = no_logins
        self._not_given = not_given

    async def fetch(self, request: RegistryRequest) -> Answer:
        """:raises Denied: for a login, and for content that the registry does not give."""
        if isinstance(request.target, Ping):
            if request.credentials is not None:
                raise Denied(self._no_logins(_port(request)))
            return Answer(json_body(b"{}"))
        if request.credentials is not None:
            request = evolve(request, credentials=None)
        try:
            return await self._registry.fetch(request)
        except Unauthorized as refused:
            reason = self._not_given(_port(request))
            raise Denied(reason, upstream_status=refused.upstream_status) from refused


def _port(request: RegistryRequest) -> str:
    return port_suffix(request.received.requested_host) if request.received else ""


@implementer(IRegistry)
class AnonymousOnly(_LoginFilter):
    """A registry on the mirror's own host.

    :param name: the registry's name, for messages.
    :param host: the registry's virtual host, which accepts logins.
    """

    def __init__(self, registry: IRegistry, name: str, host: str) -> None:
        super().__init__(
            registry,
            lambda port: f"this host takes no logins: log in to {host}{port}",
            lambda port: (
                f"{name} does not give this to everybody, or has no such image; private images:"
                f" docker login {host}{port}"
            ),
        )


@implementer(IUpstream)
class ServiceAccountOnly(_LoginFilter):
    """A registry at which the mirror has an account that all its clients share.

    :param name: the registry's name, for messages.
    """

    def __init__(self, registry: IRegistry, name: str) -> None:
        super().__init__(
            registry,
            lambda _: f"this host takes no logins: the mirror uses its own account at {name} for all clients",
            lambda _: f"{name} does not give this to this mirror, or has no such image",
        )

    async def fetch(self, request: RegistryRequest) -> Answer:
        """Mark answers private, so that no cache in front serves them to strangers."""
        answer = await super().fetch(request)
        if isinstance(request.target, Ping):
            return answer
        cache = evolve(answer.cache, immutable=False) if answer.cache else None
        fields = [pair for pair in answer.headers if pair[0].lower() != "cache-control"]
        is_stored_nowhere = ("Cache-Control", "no-store") in answer.headers
        fields.append(("Cache-Control", "no-store" if is_stored_nowhere else "private"))
        return evolve(answer, headers=tuple(fields), cache=cache)

    async def token(self, request: TokenRequest) -> Answer:
        """:raises Denied: always; no challenge sends clients here."""
        raise Denied(self._no_logins(""))
