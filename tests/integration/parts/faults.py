"""Faults of an upstream, which last as long as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """One answer to everything."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Stall:
    """No answer to anything, until it is over."""

    def __init__(self) -> None:
        self.over = threading.Event()


LIMIT = Fault(429, b'{"errors": [{"code": "TOOMANYREQUESTS"}]}', {"Retry-After": "600"})
FAILURE = Fault(500, b"goroutine 1 [running]", {"Content-Type": "text/plain"})
PAGE = Fault(200, b"<html>Please accept the terms of this network.</html>", {"Content-Type": "text/html"})
