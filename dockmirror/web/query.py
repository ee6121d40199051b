"""What a request brings beside its path."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ..headers import first, lines
from ..http.server_request import ServerRequest
from ..oci.credentials import Credentials
from ..oci.errors import RegistryError
from ..oci.ranges import Range
from ..oci.token import MARKER

_MOST = 50
Parameters = tuple[tuple[str, str], ...]


def parse_query(request: ServerRequest) -> Parameters:
    """The parameters of the query.

    :raises RegistryError: when there are too many.
    """
    return parse_pairs(request.uri.partition(b"?")[2])


def parse_pairs(encoded: bytes) -> Parameters:
    """The pairs of a query or of a form (``application/x-www-form-urlencoded``).

    :raises RegistryError: when there are too many.
    """
    try:
        text = encoded.decode("ascii", "replace")
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST))
    except ValueError:
        raise RegistryError(f"more than {_MOST} parameters", status=400) from None


def parse_credentials(request: ServerRequest) -> Credentials | None:
    """What the client brings; the token that stands for none is none.

    :raises RegistryError: when it is malformed, or there are two: who is asked next could take the other.
    """
    headers = [header for header in lines(request.requestHeaders, "Authorization") if header]
    if len(headers) > 1:
        raise RegistryError("more than one 'Authorization'", status=400)
    brought = Credentials.parse(headers[0]) if headers else None
    return None if brought is None or brought.is_bearer(MARKER) else brought


def parse_range(request: ServerRequest, etag: str) -> Range | None:
    """What is asked for of a content; None where it is all of it.

    A part is for GET only (RFC 9110, 14.2), and not for who has begun with another content (13.1.5).

    :param etag: the content's, a strong one.
    """
    if request.method != b"GET" or first(request.requestHeaders, "If-Range") not in (None, etag):
        return None
    return Range.parse(first(request.requestHeaders, "Range") or "")
