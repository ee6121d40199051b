"""How a question fails that gets no answer: what Twisted raises then, and what it means."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.python.failure import Failure
from twisted.web._newclient import (
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)

from ..oci.errors import RegistryError, TimedOut, Unavailable, Unreachable, Unreadable
from .checked_endpoint import AddressRefused

_DIED = (ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent)
_NOT_CONNECTED = (AddressRefused, ConnectError, DNSLookupError)


class NoAnswer(ConnectTimedOut):
    """A server that was connected to did not answer in time."""


FAILURES = (
    *_DIED, RequestGenerationFailed, ResponseFailed, AddressRefused, CancelledError, ConnectError,
    ConnectionLost, DNSLookupError, ValueError,
)  # fmt: skip
"""What comes of a question that got no answer."""


def root_cause(failure: BaseException) -> BaseException:
    """The innermost of the reasons that Twisted wrapped: see ``Endpoints`` for those of connecting."""
    reasons: list[Failure] = getattr(failure, "reasons", [])
    innermost = reasons[0].value if reasons else None
    return failure if innermost is None else root_cause(innermost)


def connection_lost(failure: BaseException) -> bool:
    """Whether the connection was lost, which the next one need not be."""
    return isinstance(failure, _DIED) or isinstance(root_cause(failure), ConnectionClosed)


def error_class_for(cause: BaseException) -> type[RegistryError]:
    """What the innermost of the reasons means for a client."""
    if isinstance(cause, ConnectTimedOut):
        return TimedOut
    if isinstance(cause, ConnectBindError):  # a failure of our own: no descriptor, no port
        return Unavailable
    return Unreachable if isinstance(cause, _NOT_CONNECTED) else Unreadable


def describe(cause: BaseException) -> str:
    """The innermost of the reasons, as a client may read it."""
    if isinstance(cause, DNSLookupError):
        return "its name cannot be resolved"
    if isinstance(cause, AddressRefused):  # what a name resolves to within the house is not for everybody
        return "its address may not be connected to; the log says why"
    return " ".join(str(cause).split()) or type(cause).__name__
