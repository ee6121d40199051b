"""Parse the parameters, credentials and range of a request."""

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
    """Parse the query of the request.

    :raises RegistryError: when there are too many parameters.
    """
    return parse_pairs(request.uri.partition(b"?")[2])


def parse_pairs(encoded: bytes) -> Parameters:
    """Parse a query or a form (``application/x-www-form-urlencoded``).

    :raises RegistryError: when there are too many parameters.
    """
    try:
        text = encoded.decode("ascii", "replace")
        return tuple(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST))
    except ValueError:
        raise RegistryError(f"more than {_MOST} parameters", status=400) from None


def parse_credentials(request: ServerRequest) -> Credentials | None:
    """Return the client's credentials; the marker token for anonymous access counts as none.

    :raises RegistryError: when they are malformed, or there are two: a server could read the other one.
    """
    headers = [header for header in lines(request.requestHeaders, "Authorization") if header]
    if len(headers) > 1:
        raise RegistryError("more than one 'Authorization'", status=400)
    parsed = Credentials.parse(headers[0]) if headers else None
    return None if parsed is None or parsed.is_bearer(MARKER) else parsed


def parse_range(request: ServerRequest, etag: str) -> Range | None:
    """Return the requested range, or None if the whole content is to be sent.

    Only GET takes ranges (RFC 9110, 14.2), and only if ``If-Range`` names the current content (13.1.5).

    :param etag: the strong entity tag of the current content.
    """
    if request.method != b"GET" or first(request.requestHeaders, "If-Range") not in (None, etag):
        return None
    return Range.parse(first(request.requestHeaders, "Range") or "")
