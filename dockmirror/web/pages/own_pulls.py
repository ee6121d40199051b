"""A client's own pulls, out of the history, in words; and the answer to "does my client use the mirror?"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from attrs import evolve, field, frozen
from twisted.internet.defer import maybeDeferred
from twisted.web.template import Tag, tags

from ...client_config.clients import TrialPull
from ...client_config.snippet import HUB
from ...concurrency.coroutines import RunInThread
from ...config.notation import format_size
from ...history.pulls import HistoryError, HistoryReader, Pull, PullFilter
from ...history.tracker import AddressDetail
from ...system.networks import ClientAddress
from ...system.times import format_timestamp
from .page import Language, inline_code

SHOWN = 5
"""Pulls that a page shows of one client."""
PATIENCE = 60.0
"""Seconds without a pull after which a test says what is most often wrong."""
_TEST_HOURS = 12


@frozen
class ClientPulls:
    """A client's pulls, newest first, or the reason why they are unknown.

    :ivar unknown: the key of a sentence; empty if they are known.
    """

    pulls: Sequence[Pull] = ()
    unknown: str = ""


@frozen
class PullFinder:
    """Finds a client's own pulls: those from its address, and of its user if the mirror has users.

    :ivar reader: None if the mirror keeps no history.
    :ivar addresses: the part of clients' addresses that the history keeps.
    """

    reader: HistoryReader | None = None
    addresses: AddressDetail = "full"
    in_thread: RunInThread = maybeDeferred

    async def find(self, client: ClientAddress, since: float = 0.0, limit: int = SHOWN) -> ClientPulls:
        """Return a client's pulls that began since then."""
        reader, unknown = self.reader, self._reason_unknown(client)
        if reader is None or unknown:
            return ClientPulls(unknown=unknown)
        address = str(client.address) if client.address and self.addresses == "full" else ""
        wanted = PullFilter(client=address, user=client.user or "", since=since)
        try:
            found = await self.in_thread(partial(reader.pulls, wanted, limit))
        except HistoryError:
            return ClientPulls(unknown="pulls.unreadable")
        return ClientPulls([each for each in found if each.user == (client.user or "")])

    def _reason_unknown(self, client: ClientAddress) -> str:
        if self.reader is None:
            return "pulls.off"
        if client.user is not None:
            return ""
        if self.addresses != "full":
            return f"pulls.{self.addresses}_kept"
        return "" if client.address else "pulls.nobody"


def name_image(pull: Pull) -> str:
    """Return the image's name as its users write it."""
    repository = f"{pull.registry}/{pull.repository}"
    if pull.registry == HUB:
        repository = pull.repository.removeprefix("library/")
    is_digest = ":" in pull.reference
    return f"{repository}@{pull.reference[:15]}…" if is_digest else f"{repository}:{pull.reference}"


def describe_pull(pull: Pull, say: Language) -> str:
    """Return what came of a pull, without its image's name."""
    return " · ".join(filter(None, _parts(pull, say)))


def _parts(pull: Pull, say: Language) -> Iterator[str]:
    size = format_size(pull.cached_bytes + pull.upstream_bytes)
    if pull.outcome == "failed":
        yield say("pulls.failed", why=explain_failure(pull, say))
        return
    if pull.outcome == "running":
        yield say("pulls.running", size=size)
    else:
        yield size
    if pull.layers:
        one = pull.layers == 1
        yield say("pulls.layer" if one else "pulls.layers", count=pull.layers, cached=pull.cached_layers)
    if pull.outcome == "served":
        yield say("duration.seconds", count=f"{pull.seconds:.{1 if pull.seconds < 10 else 0}f}")
        yield _describe_savings(pull, say)


def _describe_savings(pull: Pull, say: Language) -> str:
    upstream = "Docker Hub" if pull.registry == HUB else pull.registry
    size = format_size(pull.cached_bytes)
    one = pull.saved_pulls == 1
    limited = say("pulls.one_of" if one else "pulls.some_of", count=pull.saved_pulls, upstream=upstream)
    if pull.cached_bytes and pull.saved_pulls:
        return say("pulls.saved_both", size=size, pulls=limited)
    if pull.cached_bytes or pull.saved_pulls:
        return say("pulls.saved", what=size if pull.cached_bytes else limited)
    return say("pulls.first")


_FAILURES = (
    (
        r"recalled by the operator|refused by the policy server|not signed by a trusted|allowed by the rule"
        r"|too new for the cool-down|not in the lock file|no tag of the repository was served",
        "refused",  # whatever else the reason says in the words of an operator or of a policy server
    ),
    (r"\b404\b|unknown to registry|not known", "missing"),
    (r"\b401\b|authentication|password|log ?in", "login"),
    (r"\b429\b|too many|rate limit", "limit"),
    (r"\b403\b|denied|may not be", "denied"),
    (r"no space|disk|store", "disk"),
    (r"in time|reach|connect|resolve|broke|\b5\d\d\b|tls|certificate", "unreachable"),
)


def explain_failure(pull: Pull, say: Language) -> str:
    """Return why a pull failed in plain words, and in brackets as the log says it."""
    reason = pull.reason.rstrip(".")
    keys = (key for pattern, key in _FAILURES if re.search(pattern, reason, re.IGNORECASE))
    if (key := next(keys, None)) is None:
        return reason or say("failure.unknown")
    upstream = "Docker Hub" if pull.registry == HUB else pull.registry
    return say("failure.because", plain=say(f"failure.{key}", upstream=upstream), reason=reason)


@frozen
class ClientTest:
    """A test that waits for a pull of this client.

    :ivar began: in seconds since the epoch; 0 if no test was started.
    """

    client: ClientAddress
    began: float
    now: float
    result: ClientPulls = field(factory=ClientPulls)

    @classmethod
    def parse(cls, text: str, client: ClientAddress, now: float) -> ClientTest:
        """Return the test that an address names by its beginning, or none if that is long ago or to come."""
        began = float(text) if text.isdecimal() and len(text) < 12 else 0.0
        return cls(client, began if now - _TEST_HOURS * 3600 < began <= now else 0.0, now)

    def with_result(self, found: ClientPulls) -> ClientTest:
        """Return the test with the client's pulls, of which only those since its beginning count."""
        since = [each for each in found.pulls if each.began >= self.began]
        return evolve(self, result=evolve(found, pulls=since))

    @property
    def state(self) -> str:
        """The key of what the test says: none, unknown, waiting, late, running, served or failed."""
        if not self.began:
            return "none"
        if self.result.unknown:
            return "unknown"
        pulls = self.result.pulls
        if pulls:
            return next((each for each in pulls if each.outcome == "served"), pulls[0]).outcome
        return "waiting" if self.now - self.began < PATIENCE else "late"


_ADVICE = ("reload", "hub", "present", "unreached", "address")


def render_test(test: ClientTest, url: str, trials: Sequence[TrialPull], say: Language) -> Tag:
    """Return what a test says.

    :param url: the address of the mirror that the client should use.
    :param trials: the commands that it suggests.
    """
    state = test.state
    part = tags.div(class_=f"result {state}")
    if state == "none":
        return part
    if state == "unknown":
        return part(tags.p(say(test.result.unknown)))
    address = test.client.address or test.client.user
    part(
        tags.p(
            tags.strong(say(f"test.{state}", address=address)),
            " ",
            inline_code(say(f"test.{state}.what", address=address)),
        )
    )
    if state == "waiting":
        commands = (tags.li(f"{each.title}: ", tags.code(each.command)) for each in trials)
        return part(tags.ul([*commands]))
    if state == "late":
        advice = (say(f"test.advice.{each}", url=url, address=address) for each in _ADVICE)
        return part(tags.ul([tags.li(inline_code(each)) for each in advice]))
    return part([_line(each, say) for each in test.result.pulls[:1]])


def render_pulls(found: ClientPulls, address: object, now: float, say: Language) -> Tag:
    """Return the list of a client's pulls."""
    part = tags.div()
    if found.unknown:
        return part(tags.p(say(found.unknown), class_="none"))
    if not found.pulls:
        return part(tags.p(say("pulls.none", address=address), class_="none"))
    items = (tags.li(_line(each, say), _age(each, now, say), class_=each.outcome) for each in found.pulls)
    return part(tags.ol([*items], class_="pulls"))


def _line(pull: Pull, say: Language) -> Tag:
    name = tags.code(name_image(pull), title=f"{pull.registry}/{pull.repository} {pull.reference}")
    return tags.p(name, f" · {describe_pull(pull, say)}")


def _age(pull: Pull, now: float, say: Language) -> Tag:
    time = format_timestamp(pull.began)
    return tags.time(describe_age(now - pull.began, say), datetime=time, title=time)


def describe_age(seconds: float, say: Language) -> str:
    """Return an age that changes once a minute at most, so that a live page is seldom sent again."""
    minutes = int(max(0.0, seconds) / 60)
    if minutes < 60:
        return say("age.minutes", count=minutes) if minutes else say("age.now")
    hours = minutes // 60
    return say("age.hours", count=hours) if hours < 24 else say("age.days", count=hours // 24)
