"""Responses whose body nginx sends from the cache's files: the mirror decides, and names the file.

Sources: nginx, ``X-Accel-Redirect`` in ngx_http_upstream_module.c; ngx_http_range_filter_module.c and
ngx_http_not_modified_filter_module.c for what nginx makes of the request's own fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from twisted.web.http_headers import Headers

ACCEL_FIELD = "Dockmirror-Accel"
"""The field of requests with which a proxy declines: "off" once it could not open a file."""
CACHE_CONTROL_FIELD = "Dockmirror-Cache-Control"
"""The field of responses from which nginx's location of the files sets ``Cache-Control``."""
_LOCATION = PurePosixPath("/dockmirror-blobs")
_CONDITIONS = ("if-match", "if-modified-since", "if-unmodified-since")
_SINGLE_RANGE = re.compile(r"bytes=(\d{1,18}-(\d{1,18})?|-\d{1,18})", re.ASCII)


def accepts_accel(method: bytes, fields: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a request that a trusted proxy has passed on may be answered with a file's name."""
    return method == b"GET" and ACCEL_FIELD.lower() not in fields


def is_same_for_nginx(status: int, fields: Mapping[str, Sequence[str]]) -> bool:
    """Return whether nginx, which reads the request's fields itself, will answer with this status, too.

    It evaluates the conditions that the mirror ignores, by the file's time, and it refuses malformed ranges.
    """
    if any(name in fields for name in _CONDITIONS):
        return False
    ranges = fields.get("range", ())
    if status == 206:
        return len(ranges) == 1 and _SINGLE_RANGE.fullmatch(ranges[0]) is not None
    return status == 200 and not ranges


def prepare_for_accel(headers: Headers, name: PurePosixPath) -> None:
    """Turn the fields of a response with a body into those of one without it, which names the file to nginx.

    nginx makes some fields itself, and keeps some even if it cannot open the file and asks again: those are
    left out or have another name.

    :param name: lies below the directory of blobs.
    """
    for value in headers.getRawHeaders(b"Cache-Control", []):
        headers.addRawHeader(CACHE_CONTROL_FIELD.encode(), value)
    for field in ("Cache-Control", "Accept-Ranges", "Content-Range"):
        headers.removeHeader(field)
    headers.setRawHeaders("Content-Length", ["0"])
    headers.setRawHeaders("X-Accel-Redirect", [str(_LOCATION / name)])
