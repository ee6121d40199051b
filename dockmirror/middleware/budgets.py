"""Limit what each client network may use of images in a window of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from attrs import frozen
from zope.interface import implementer

from ..http.server_request import ServerRequest
from ..http.usage import LABEL_SIZE, LimitTerms, UsageMeter
from ..interfaces import Answer, IRegistry
from ..oci.errors import TooManyRequests
from ..oci.media import DOCKER_LIST, OCI_INDEX
from ..oci.pull_rule import PullRule
from ..oci.request import Blob, Manifest, RegistryRequest
from ..system.networks import Network, client_network, pack_address
from ..system.shared_table import hash_key

_IDENTIFIER_SIZE = LABEL_SIZE - 16
"""The rest of a label is an address."""


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
