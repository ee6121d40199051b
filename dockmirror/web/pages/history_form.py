"""The form of the history's page: its fields as they were typed, and the filter that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from attrs import asdict, field, fields, frozen

from ...history.pulls import PullFilter
from ...history.tracker import AddressDetail, parse_client
from ...http.server_request import Parameters
from ...oci.digest import Digest
from ...oci.errors import DigestInvalid
from .page import LANGUAGES

OUTCOMES = ("served", "failed", "running")
TIMES: Mapping[str, int] = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
"""The times that the form offers, in seconds up to now."""
MAX_LENGTH = 300
_DAY = 86_400
_LAST_NUMBER = 2**63 - 1


@frozen
class HistoryForm:
    """The fields of a question.

    :ivar after: the number of the last pull of the previous page.
    :ivar lang: the language that the reader has chosen on the page.
    """

    client: str = ""
    user: str = ""
    image: str = ""
    outcome: str = ""
    time: str = "week"
    after: str = ""
    lang: str = ""

    @classmethod
    def parse(cls, query: Parameters) -> HistoryForm:
        """Return the fields that a query has; empty ones count as missing."""
        names = {each.name for each in fields(cls)}
        found = {name: text.strip() for name, text in query if name in names and text.strip()}
        return cls(**{**found, "lang": found["lang"] if found.get("lang") in LANGUAGES else ""})

    def query(self, **changes: str) -> dict[str, str]:
        """Return the parameters of this question with other fields, from its first page."""
        changed = {name: getattr(self, name) for name in _DEFAULTS} | {"after": "", **changes}
        return {name: text for name, text in changed.items() if text != _DEFAULTS[name]}

    def link(self, **changes: str) -> str:
        """Return the address of the page with the answer to this question with other fields."""
        query = urlencode(self.query(**changes), safe="/:*,", quote_via=quote)
        return f"/history?{query}" if query else "/history"


_DEFAULTS: Mapping[str, str] = asdict(HistoryForm())


class InvalidForm(Exception):
    """Raised if fields of a form cannot be understood.

    :ivar details: what is wrong in each field, in English; empty if the field's own sentence says it.
    """

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__(", ".join(details))
        self.details = details


@frozen
class FormReader:
    """Makes filters of forms.

    :ivar complete_image: returns the glob that an image's name stands for, or raises ValueError.
    :ivar days: the days for which pulls are kept.
    :ivar addresses: the part of clients' addresses that the history keeps.
    """

    complete_image: Callable[[str], str]
    days: int
    addresses: AddressDetail = field(default="full")

    def read(self, form: HistoryForm, now: float) -> tuple[PullFilter, int]:
        """Return the filter, and the number of the pull after which the page begins.

        The time of a week or a month begins with a day, in UTC: the history has sums of whole days.  It has
        them for longer than pulls, and only these can be counted by client, user or outcome, so that all
        questions are about the days for which pulls are kept.

        :raises InvalidForm: when fields are malformed.
        """
        readers: Mapping[str, Callable[[str], str]] = {
            "client": self._read_client,
            "user": _read_text,
            "image": lambda text: self.complete_image(_split_digest(_read_text(text))[0]),
            "outcome": lambda text: _read_choice(text, ("", *OUTCOMES)),
            "time": lambda text: _read_choice(text, TIMES),
            "after": _read_number,
        }
        found, details = {}, {}
        for name, read in readers.items():
            try:
                found[name] = read(getattr(form, name))
            except ValueError as error:
                details[name] = str(error)
        if details:
            raise InvalidForm(details)
        filter = PullFilter(
            found["image"],
            _split_digest(form.image)[1],
            client=found["client"],
            user=found["user"],
            since=begin_of(min(TIMES[form.time], self.days * _DAY), now),
            outcome=found["outcome"],
        )
        return filter, int(found["after"])

    def reaches_back(self, form: HistoryForm) -> bool:
        """Return whether a time begins before the days for which pulls are kept."""
        return TIMES[form.time] > self.days * _DAY

    def _read_client(self, text: str) -> str:
        try:
            return parse_client(_read_text(text), self.addresses)
        except ValueError:
            raise ValueError("") from None


def begin_of(seconds: float, now: float) -> float:
    """Return when a time up to now begins; one of several days begins with the first of them."""
    return now - seconds if seconds <= _DAY else (now // _DAY + 1) * _DAY - seconds


def _read_text(text: str) -> str:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has more than {MAX_LENGTH} characters")
    return text


def _split_digest(text: str) -> tuple[str, str]:
    """Return the name and the digest of ``NAME@DIGEST``, either of which may be missing, and empty then.

    :raises ValueError: when the digest is malformed.
    """
    name, at, digest = text.rpartition("@")
    try:
        return name, str(Digest.parse(digest))
    except DigestInvalid as error:
        if at:
            raise ValueError(str(error)) from None
        return text, ""


def _read_choice(text: str, choices: tuple[str, ...] | Mapping[str, int]) -> str:
    if text not in choices:
        raise ValueError("")
    return text


def _read_number(text: str) -> str:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LAST_NUMBER):
        raise ValueError("")
    return text or "0"
