"""The pull that messages of the log belong to: each coroutine that answers a request has its own."""

from __future__ import annotations

from contextvars import ContextVar

current_pull: ContextVar[str] = ContextVar("current_pull", default="")
"""The number of the pull; Twisted runs each coroutine in a copy of the context that it was started in."""
