"""Errors of a registry: a class for each code of the distribution specification, and the challenge of a 401.

They are raised anywhere and answered in one place (``web/respond.py``).  A client reads ``entries`` and
``status``; the cause is the exception's ``__cause__`` and never leaves the process.

Sources: OCI distribution specification, "Error Codes"; the codes after ``TOOMANYREQUESTS`` are additions of
the distribution registry that clients know.  RFC 9110, 11.2 to 11.6.1, for challenges: upstreams send several
in one line or in several lines, quoted commas, and values without the quotes that they need; clients expect
one ``Bearer`` with lower-case keys and quoted values, and stop at an empty one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import evolve, field, frozen

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SEPARATOR = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]+|(?=[\s,]|$))', re.DOTALL)
_SCHEME = re.compile(rf"({_WORD})(?=[\s,]|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
_UNREADABLE = re.compile(rf"{_WORD}|.", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_REASON_LENGTH = 200


@frozen
class Challenge:
    """An authentication scheme that a server offers, and its parameters with keys in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)

    def __str__(self) -> str:
        parameters = ",".join(f'{key}="{_quoted(value)}"' for key, value in self.parameters.items() if value)
        return f"{self.scheme} {parameters}" if parameters else self.scheme

    def get(self, key: str) -> str:
        """Return a parameter's value, or an empty string."""
        return self.parameters.get(key, "")


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse all challenges of ``WWW-Authenticate`` lines in order; unreadable parts are skipped."""
    return tuple(challenge for line in lines for challenge in _parse_line(line))


def find_challenge(challenges: Iterable[Challenge], scheme: str) -> Challenge | None:
    """Return the first challenge of that scheme, ignoring case."""
    return next((each for each in challenges if each.scheme.lower() == scheme.lower()), None)


def _parse_line(line: str) -> list[Challenge]:
    challenges: list[tuple[str, dict[str, str]]] = []
    position = _skip(_SEPARATOR, line, 0)
    while position < len(line):
        if challenges and (parameter := _PARAMETER.match(line, position)):
            challenges[-1][1].setdefault(parameter[1].lower(), _unquoted(parameter[2]))
            position = parameter.end()
        elif scheme := _SCHEME.match(line, position):
            challenges.append((scheme[1], {}))
            token68 = _TOKEN68.match(line, scheme.end())
            position = token68.end() if token68 else scheme.end()
        else:
            position = _skip(_UNREADABLE, line, position)
        position = _skip(_SEPARATOR, line, position)
    return [Challenge(scheme, parameters) for scheme, parameters in challenges]


def _skip(pattern: re.Pattern[str], line: str, position: int) -> int:
    match = pattern.match(line, position)
    return match.end() if match else position


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _ESCAPE.sub(r"\1", value[1:-1])
    return value.strip('"')


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


@frozen
class ErrorEntry:
    """One element of the ``errors`` list that clients read."""

    code: str
    message: str
    detail: object = None


class RegistryError(Exception):
    """An error that is sent to the client in the specification's format.

    :ivar entries: the ``errors`` list of the response; an upstream's own entries, if it sent some.
    :ivar summary: the error in the mirror's own words, for the access log, pages and status lines: an
        upstream may repeat a secret of the client's.
    :ivar status: the HTTP status of the response.
    :ivar challenges: for a 401, the upstream's challenges; they are not passed on unchanged.
    :ivar retry_after: the upstream's ``Retry-After``, verbatim.
    :ivar upstream_status: the status of the upstream's response, for the access log.
    :ivar from_other_host: True if another server than the registry failed: its token service, or a server
        that it redirects to.
    :ivar content_size: for a 416, the size of the content.
    :ivar range: for a 416 of an upload, the bytes of it that have arrived.
    :ivar location: for a 416 of an upload, the path below the repository where it continues.
    """

    code: ClassVar[str] = "UNKNOWN"
    default_status: ClassVar[int] = 500
    default_message: ClassVar[str] = "unknown error"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        challenges: tuple[Challenge, ...] = (),
        retry_after: str | None = None,
        upstream_status: int | None = None,
        from_other_host: bool = False,
    ) -> None:
        super().__init__(message)
        self.entries: tuple[ErrorEntry, ...] = (ErrorEntry(self.code, message or self.default_message),)
        self.summary = message or self.default_message
        self.status = status or self.default_status
        self.challenges = challenges
        self.retry_after = retry_after
        self.upstream_status = upstream_status
        self.from_other_host = from_other_host
        self.content_size: int | None = None
        self.range: str | None = None
        self.location: str | None = None

    def __str__(self) -> str:
        return self.entries[0].message

    def add_hint(self, hint: str) -> None:
        """Append a hint to the first message and to the summary, unless they have it: errors are shared."""
        if hint not in self.summary:
            first, *others = self.entries
            self.entries = (evolve(first, message=f"{first.message}; {hint}"), *others)
            self.summary = f"{self.summary}; {hint}"

    def body(self) -> bytes:
        """Return the body of the response: ``{"errors": [...]}``."""
        errors = [{"code": e.code, "message": e.message, "detail": e.detail} for e in self.entries]
        return json.dumps({"errors": errors}).encode()


def summarize_error(error: Exception) -> str:
    """Return an error in the mirror's own words, without those of an upstream, or in the system's.

    Those begin with the path concerned, which for a file that is renamed is its new one.
    """
    if isinstance(error, RegistryError):
        return error.summary
    if not isinstance(error, OSError):
        return str(error)
    path = error.filename if error.filename2 is None else error.filename2
    place = f"{os.fsdecode(path)}: " if isinstance(path, str | bytes) else ""
    return f"{place}{error.strerror or error}"


class BlobUnknown(RegistryError):
    """The registry does not have the blob."""

    code, default_status, default_message = "BLOB_UNKNOWN", 404, "blob unknown to registry"


class BlobUploadInvalid(RegistryError):
    """The upload cannot continue."""

    code, default_status, default_message = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"


class BlobUploadUnknown(RegistryError):
    """The upload does not exist."""

    code, default_status, default_message = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"


class DigestInvalid(RegistryError):
    """The text is no digest, or the content has another one."""

    code, default_status = "DIGEST_INVALID", 400
    default_message = "provided digest did not match uploaded content"


class ManifestBlobUnknown(RegistryError):
    """The manifest refers to a blob that the registry does not have."""

    code, default_status = "MANIFEST_BLOB_UNKNOWN", 404
    default_message = "manifest references a blob unknown to registry"


class ManifestInvalid(RegistryError):
    """The document is no manifest."""

    code, default_status, default_message = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestUnknown(RegistryError):
    """The repository does not have the manifest."""

    code, default_status, default_message = "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"


class NameInvalid(RegistryError):
    """The text is no name of a repository."""

    code, default_status, default_message = "NAME_INVALID", 400, "invalid repository name"


class NameUnknown(RegistryError):
    """The registry does not have the repository."""

    code, default_status, default_message = "NAME_UNKNOWN", 404, "repository name not known to registry"


class SizeInvalid(RegistryError):
    """The length does not match the content, or exceeds a limit."""

    code, default_status = "SIZE_INVALID", 400
    default_message = "provided length did not match content length"


class Unauthorized(RegistryError):
    """Credentials are needed, or the given ones were rejected."""

    code, default_status, default_message = "UNAUTHORIZED", 401, "authentication required"


class Denied(RegistryError):
    """The client lacks permission."""

    code, default_status, default_message = "DENIED", 403, "requested access to the resource is denied"


class Unsupported(RegistryError):
    """The operation is not supported."""

    code, default_status, default_message = "UNSUPPORTED", 405, "the operation is unsupported"


class TooManyRequests(RegistryError):
    """A limit was reached; ``retry_after`` may say when it ends."""

    code, default_status, default_message = "TOOMANYREQUESTS", 429, "too many requests"


class TagInvalid(RegistryError):
    """Not a tag."""

    code, default_status, default_message = "TAG_INVALID", 400, "manifest tag invalid"


class RangeInvalid(RegistryError):
    """No byte of the content lies in the range asked for."""

    code, default_status, default_message = "RANGE_INVALID", 416, "range not satisfiable"

    def __init__(self, message: str | None = None, *, content_size: int | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.content_size = content_size


class Unavailable(RegistryError):
    """The upstream answered, but not in a way that can be passed on."""

    code, default_status, default_message = "UNAVAILABLE", 502, "the upstream's answer is unusable"


class Unreachable(Unavailable):
    """The upstream gave no answer: not resolved, not connected, refused, or cut off."""


class Unreadable(Unreachable):
    """The upstream accepted the connection, but its answer was not HTTP."""


class BrokenOff(Unreadable):
    """The upstream broke off its answer."""


class TimedOut(Unreachable):
    """The upstream did not answer in time."""

    default_status = 504


ERROR_CLASSES = tuple(RegistryError.__subclasses__())
"""The classes with a code of their own, in the order of the table."""

_BY_CODE: Mapping[str, type[RegistryError]] = {row.code: row for row in ERROR_CLASSES}

_BY_STATUS: Mapping[int, type[RegistryError]] = {
    401: Unauthorized,
    403: Denied,
    405: Unsupported,
    413: SizeInvalid,
    416: RangeInvalid,
    429: TooManyRequests,
}


@frozen
class UpstreamRefusal:
    """An error response of an upstream.

    Its own entries are kept if they follow the specification, and wrapped if they do not.
    """

    status: int
    body: bytes
    challenges: tuple[Challenge, ...] = ()
    retry_after: str | None = None
    unknown: type[RegistryError] = field(default=NameUnknown)
    """The class of a 404 without a code, by what was requested."""
    from_other_host: bool = False

    def error(self) -> RegistryError:
        """Return the error to raise: with the upstream's entries or its wrapped text, and its status."""
        entries = _entries(self.body)
        row = self._row()
        if entries and self.status not in (401, 429):  # of these the status says more than a code
            row = _BY_CODE.get(entries[0].code, RegistryError)
        reason = _reason(self.body)
        message = f"the upstream answered {self.status}"
        if reason and reason[0].isalnum() and reason.isprintable():  # a sentence and no page or document
            message = f"{message}: {reason[:_REASON_LENGTH]}"
        error = row(
            f"the upstream answered {self.status}{_known_code(entries)}",
            status=self.status,
            challenges=self.challenges,
            retry_after=self.retry_after,
            upstream_status=self.status,
            from_other_host=self.from_other_host,
        )
        error.entries = entries or (ErrorEntry(row.code, message, reason),)
        return error

    def _row(self) -> type[RegistryError]:
        if self.status == 404:
            return self.unknown
        return _BY_STATUS.get(self.status, Unavailable if self.status >= 500 else RegistryError)


def _entries(body: bytes) -> tuple[ErrorEntry, ...]:
    try:
        listed = json.loads(body)["errors"]
        return tuple(_entry(e) for e in listed)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _known_code(entries: Sequence[ErrorEntry]) -> str:
    """Return a blank and the first code, if it is one of the specification's."""
    return f" {entries[0].code}" if entries and entries[0].code in _BY_CODE else ""


def _entry(value: Mapping[str, object]) -> ErrorEntry:
    code = value["code"]
    if not isinstance(code, str):
        raise TypeError("a code is text")
    return ErrorEntry(code, str(value.get("message") or ""), value.get("detail"))


def _reason(body: bytes) -> str | None:
    """Return the beginning of a body that does not follow the specification, as text for people."""
    text = " ".join(body[:512].decode("utf-8", "replace").split())
    return text or None
