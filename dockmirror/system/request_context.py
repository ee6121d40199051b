"""The request that a coroutine works for; Twisted runs it in a copy of the context that it began in."""

from __future__ import annotations

from contextvars import ContextVar

from ..oci.header_fields import Hop

current_pull: ContextVar[str] = ContextVar("current_pull", default="")
"""The number of the pull that the request belongs to; messages of the log bear it."""
current_hops: ContextVar[tuple[Hop, ...]] = ContextVar("current_hops", default=())
"""The mirrors that the request has passed before it reached this one."""
