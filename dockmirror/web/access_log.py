"""The access log and the audit log: one line for each request, without secrets.

Queries are left out: token requests carry account names in them, and some clients passwords.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from twisted.internet.interfaces import IReactorTime

from ..http.server_request import ServerRequest

Write = Callable[[str], None]


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
        named = {key: fields[key] for key in ("time", "client", "host", "method", "path", "status", "bytes")}
        user = request.admitted_client.user if request.admitted_client else None
        self._write(json.dumps({**named, "user": user, "whole": not request.is_cut_off}))


def _fields(request: ServerRequest, now: float) -> dict[str, object]:
    client = request.peer
    address = client.address if client else getattr(request.getClientAddress(), "host", None)
    return {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "client": str(address or "unix"),
        "host": client.host if client else "-",
        "method": request.method.decode("ascii", "replace") if request.path else "-",
        "path": request.path.decode("ascii", "replace") if request.path else "-",
        "status": request.code,
        "bytes": request.sentLength,
        "seconds": round(now - request.started, 3),
        "upstream": request.upstream_status,
        "cut_off": request.is_cut_off,
    }


def _as_json(fields: dict[str, object]) -> str:
    return json.dumps(fields)


def _as_text(fields: dict[str, object]) -> str:
    written = (_word(value) for key, value in fields.items() if key != "cut_off")
    return " ".join(written) + (" cut off" if fields["cut_off"] else "")


def _word(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text)
