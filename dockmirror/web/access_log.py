"""The access log and the audit log: one line for each request, without secrets.

Queries are left out: token requests carry account names in them, and some clients passwords.  So are the
names of uploads: they contain the upstream's address of the upload, which may be signed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from twisted.internet.interfaces import IReactorTime

from ..http.server_request import ServerRequest
from ..metrics import OTHER, Metrics
from ..oci.errors import RegistryError
from ..oci.request import decode_segments, parse_target
from ..oci.write import is_upload_path
from ..system.networks import is_address
from ..system.times import format_timestamp

Write = Callable[[str], None]
_REASON_LENGTH = 300
_AUDITED = ("time", "client", "host", "method", "path", "status", "bytes", "pull")


class AccessLog:
    """Writes a line for each finished request.

    :param write: writes a line, given without its line break.
    """

    def __init__(self, form: Literal["text", "json"], clock: IReactorTime, write: Write) -> None:
        self._format = _as_json if form == "json" else _as_text
        self._clock = clock
        self._write = write

    def __call__(self, request: ServerRequest) -> None:
        """Log a finished request; call once for each."""
        self._write(self._format(_fields(request, self._clock.seconds())))


class AuditLog:
    """Writes a JSON line for each finished request that says which user got what.

    :param write: writes a line, given without its line break.
    """

    def __init__(self, clock: IReactorTime, write: Write) -> None:
        self._clock = clock
        self._write = write

    def __call__(self, request: ServerRequest) -> None:
        """Log a finished request; call once for each."""
        fields = _fields(request, self._clock.seconds())
        named = {key: fields[key] for key in _AUDITED}
        user = request.admitted_client.user if request.admitted_client else None
        outcome = {key: fields[key] for key in ("accel", "reason")}
        self._write(json.dumps({**named, "user": user, "whole": not request.is_cut_off, **outcome}))


def _fields(request: ServerRequest, now: float) -> dict[str, object]:
    client = request.peer
    address = client.address if client else getattr(request.getClientAddress(), "host", None)
    return {
        "time": format_timestamp(now),
        "client": str(address or "unix"),
        "host": client.host if client else "-",
        "method": request.method.decode("ascii", "replace") if request.path else "-",
        "path": _without_upload(request.path).decode("ascii", "replace") if request.path else "-",
        "status": request.code,
        "bytes": request.sentLength,
        "seconds": round(now - request.started, 3),
        "upstream": request.upstream_status,
        "pull": request.pull_id or None,
        "via": ",".join(hop.pull or "-" for hop in request.hops) or None,
        "accel": request.is_accelerated,
        "cut_off": request.is_cut_off,
        "reason": find_reason(request),
    }


def _without_upload(path: bytes) -> bytes:
    if b"uploads" not in path and b"%" not in path:
        return path
    parent = path.rstrip(b"/").rpartition(b"/")[0]
    is_upload = list(filter(None, decode_segments(parent)))[-2:] == ["blobs", "uploads"]
    return parent + b"/..." if is_upload else path


def find_reason(request: ServerRequest) -> str | None:
    """Return a sentence that says why a request was refused or failed.

    A challenge has none: it is the first half of most pulls.
    """
    if request.reason is None or (request.code == 401 and request.getHeader(b"Authorization") is None):
        return None
    return " ".join(request.reason.split())[:_REASON_LENGTH]


def _as_json(fields: dict[str, object]) -> str:
    return json.dumps({"kind": "request", **fields})


def _as_text(fields: dict[str, object]) -> str:
    unwritten = ("via", "accel", "cut_off", "reason")
    written = [_word(value) for key, value in fields.items() if key not in unwritten]
    if fields["via"]:
        written.append(f"via {fields['via']}")
    if fields["accel"]:
        written.append("accel")
    if fields["cut_off"]:
        written.append("cut off")
    if fields["reason"]:
        written.append(json.dumps(fields["reason"]))
    return " ".join(written)


def _word(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text)


class RequestCounter:
    """Counts finished requests.

    :param hosts: the metric label of each host name of the mirror.
    :param own: the metric label of the mirror's addresses.
    """

    def __init__(self, hosts: Mapping[str, str], own: str, metrics: Metrics) -> None:
        self._hosts = hosts
        self._own = own
        self._requests: Callable[[str, str, str], Any] = cache(metrics.requests.labels)
        self._sent_bytes: Callable[[str], Any] = cache(metrics.sent_bytes.labels)
        self._accel_bytes: Callable[[str], Any] = cache(metrics.accel_bytes.labels)

    def __call__(self, request: ServerRequest) -> None:
        """Count a finished request; call once for each."""
        host = self._host(request.peer.host_name if request.peer else "")
        status = str(request.code) if 100 <= request.code < 600 else OTHER
        self._requests(host, endpoint_name(request.path or b""), status).inc()
        self._sent_bytes(host).inc(request.sentLength)
        if request.is_accelerated:
            self._accel_bytes(host).inc(request.sentLength)

    def _host(self, name: str) -> str:
        return self._hosts.get(name) or (self._own if is_address(name) else OTHER)


def endpoint_name(path: bytes) -> str:
    """Return the name of the endpoint of a raw path, or ``OTHER``."""
    parts = path.split(b"/")
    segments = parts if parts[1:2] == [b"v2"] else [b"", *parts[2:]]
    if segments == [b"", b"v2", b"auth"]:
        return "token"
    if b"uploads" in path and is_upload_path(b"/".join(segments)):
        return "upload"
    try:
        return type(parse_target(b"/".join(segments))).__name__.lower()
    except RegistryError:
        return OTHER
