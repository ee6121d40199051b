"""Strict grammars of the requests that a registry's clients may send and of the responses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Grammar(NamedTuple):
    """The requests that may reach a server.

    :ivar line: the first line of a request.
    :ivar fields: its headers in small letters, and what each may say.
    """

    line: re.Pattern[str]
    fields: Mapping[str, str]


_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_DIGEST, _QUOTED = (
    rf"(?:sha256{colon}[0-9a-f]{{64}}|sha384{colon}[0-9a-f]{{96}}|sha512{colon}[0-9a-f]{{128}})"
    for colon in (":", "%3A")
)
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_ENCODED = r"(?:[A-Za-z0-9._~*+-]|%[0-9A-F]{2})*"
_QUERY = rf"(?:\?{_ENCODED}={_ENCODED}(?:&{_ENCODED}={_ENCODED})*)?"
_IN = rf"{_NAME}/(?:manifests/(?:{_TAG}|{_DIGEST})|blobs/{_DIGEST}|tags/list|referrers/{_DIGEST})"
_READ = rf"(?:GET|HEAD) /v2/(?:_catalog|{_IN})?{_QUERY} HTTP/1\.1|(?:GET|POST) /token{_QUERY} HTTP/1\.1"
_ANYTHING = r"(?:GET|HEAD) /(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})* HTTP/1\.1"
_UPLOAD = rf"/v2/{_NAME}/blobs/uploads/1\?state=2"
_FROM = _NAME.replace("/", "%2F")
_OF_UPLOADS = rf"(?:digest={_QUOTED}|mount={_QUOTED}|from={_FROM})"
_CHANGED = "|".join(
    (
        rf"POST /v2/{_NAME}/blobs/uploads/(?:\?{_OF_UPLOADS}(?:&{_OF_UPLOADS})?)?",
        rf"(?:GET|HEAD|PATCH|DELETE) {_UPLOAD}",
        rf"PUT {_UPLOAD}(?:&digest={_QUOTED})?",
        rf"PUT /v2/{_NAME}/manifests/(?:{_TAG}|{_DIGEST}(?:\?tag={_TAG}(?:&tag={_TAG})*)?)",
        rf"DELETE /v2/{_NAME}/(?:manifests/(?:{_TAG}|{_DIGEST})|blobs/{_DIGEST})",
    )
)
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_PARAMETERS = rf"(?:[ \t]*;[ \t]*(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?)*"
_KIND = rf"{_WORD}/{_WORD}{_PARAMETERS}"
_SPAN = r"(?:[0-9]+-[0-9]*|-[0-9]+)"
_ETAG = r'(?:W/)?"[!#-~]*"'
_HOP = r"dockmirror-[0-9a-f]{32}(?:; pull=[0-9]{1,16})?"
_FIELDS_OF_READS = {
    "accept": rf"{_KIND}(?:[ \t]*,[ \t]*{_KIND})*",
    "accept-encoding": "identity",
    "authorization": r"(?i:Bearer) +[!-~]+ *|(?i:Basic) +[A-Za-z0-9+/]+={0,2} *",
    "cdn-loop": rf"{_HOP}(?:, {_HOP}){{0,15}}",
    "connection": "close|keep-alive",
    "content-length": "[0-9]+",
    "content-type": "application/x-www-form-urlencoded",
    "if-none-match": rf"\*|{_ETAG}(?:[ \t]*,[ \t]*{_ETAG})*",
    "range": rf"bytes={_SPAN}(?:,{_SPAN})*",
    "user-agent": r"[\w./ -]+",
}
_FIELDS_OF_WRITES = {
    **_FIELDS_OF_READS,
    "content-range": "[!-+.-~-]+(?: [!-+.-~-]+)*",
    "content-type": _KIND,
    "transfer-encoding": "chunked",
}
READ = Grammar(re.compile(_READ), _FIELDS_OF_READS)
SENT_ON = Grammar(re.compile(_ANYTHING), _FIELDS_OF_READS)
"""The same where the upstream has redirected: any target that RFC 3986 knows."""
WRITTEN = Grammar(re.compile(rf"{_READ}|(?:{_CHANGED}) HTTP/1\.1"), _FIELDS_OF_WRITES)
"""The requests for a registry that takes writes, too; it calls each upload 1, with 2 for its state."""
_ANSWERED = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2} [ -~]*")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~]*")


def fault_of_request(head: bytes, host: str, grammar: Grammar) -> str | None:
    """The error in a request that reached an upstream called *host*, or None."""
    try:
        line, *fields = head.removesuffix(b"\r\n\r\n").decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return "no ASCII"
    if not grammar.line.fullmatch(line):
        return f"the request line {line!r}"
    seen = []
    for field in fields:
        name, colon, value = field.partition(": ")
        seen.append(name.lower())
        pattern = re.escape(host) if seen[-1] == "host" else grammar.fields.get(seen[-1])
        if not colon or pattern is None or not re.fullmatch(pattern, value):
            return f"the field {field!r}"
    repeated = {name for name in seen if seen.count(name) > 1} - {"accept"}
    return None if not repeated and "host" in seen else f"no host, or fields twice: {repeated}"


def statuses(received: bytes) -> list[int]:
    """The statuses of all responses on a connection.

    :raises ValueError: these are no responses, or not whole, or there is more than they announce.
    """
    found = []
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        wrong = [field for field in fields if not _FIELD.fullmatch(field)]
        if not end or not _ANSWERED.fullmatch(line) or wrong:
            raise ValueError(f"no head of a response: {line!r} {wrong!r}")
        found.append(int(line[9:12]))
        length = _length(fields)
        # to HEAD, and with 304, there is no body
        if received and not received.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            if len(received) < length:
                raise ValueError(f"{len(received)} bytes of a body of {length}")
            received = received[length:]
    return found


def _length(fields: list[bytes]) -> int:
    told = [field.partition(b": ")[2] for field in fields if field.lower().startswith(b"content-length: ")]
    coded = [field for field in fields if field.lower().startswith(b"transfer-encoding")]
    if len(told) > 1 or coded:
        raise ValueError(f"a body whose end can be understood in two ways: {told} {coded}")
    return int(told[0]) if told else 0
