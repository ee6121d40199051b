"""How many files and connections this process may have open at a time."""

from __future__ import annotations

import resource

_MOST = 1_000_000
"""More than Linux lets a process have, unless it was asked to."""
_OWN = 64
"""What the process itself has open, and the connections on which health is answered beyond the limit."""
_EACH = 3
"""A client's connection, the upstream's that it waits for, and a file of the store."""


def raise_connection_limit() -> int:
    """How many clients there is room for, once the soft limit is as high as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, (most - _OWN) // _EACH)
