"""The limits that a client is held to."""

from __future__ import annotations

from attrs import frozen


@frozen
class HttpLimits:
    """How much a client may send, and how long it may take.

    Every time is absolute: a byte now and then extends none.  Only a body that is passed on while it comes
    may take as long as it takes, if it keeps a pace.

    :ivar head_bytes: for request line, headers and the empty line.
    :ivar head_seconds: from a head's first byte to its last, and for a new connection to send one.
    :ivar body_seconds: for a body that is read; and in which so much of one that is passed on has to come:
    :ivar body_pace: bytes, while the mirror is ready to take them.
    :ivar idle_seconds: between a response and the next request, and for a closing connection to be gone.
    :ivar linger_seconds: from a response whose request was not read to its end until the close; some round
        trips, for a client that reads while it sends.
    :ivar linger_bytes: what is thrown away at most in that time; more than the two kernels hold (4 and 6 MiB
        on Linux), since a close with bytes unread is a reset and takes the response with it.
    :ivar stall_seconds: for a client that takes nothing of a response, all buffers in between being full.
    :ivar young_seconds: the age at which a drain closes a connection that has sent nothing; its request may
        be on its way.
    """

    head_bytes: int = 64 * 1024
    head_seconds: float = 15
    body_seconds: float = 30
    body_pace: int = 8 * 1024
    idle_seconds: float = 90
    linger_seconds: float = 5
    linger_bytes: int = 16 * 1024 * 1024
    stall_seconds: float = 600
    young_seconds: float = 2
