"""The head of a request as bytes: where it ends, and what is refused before Twisted parses it.

Twisted itself refuses two lengths, a length beside a transfer coding, names that are no tokens, spaces in the
target, and versions other than 1.0 and 1.1.  Only what it lets pass is looked at here.
"""

from __future__ import annotations

import re

from ..oci.errors import RegistryError, Unsupported

_END = b"\r\n\r\n"
_TEXT = bytes([9, *range(32, 127), *range(128, 256)])
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@:][^/?#@]*)(/[^?]*)?(\?.*)?", re.DOTALL)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


def malformed(message: str) -> RegistryError:
    """What a client is told whose request cannot be understood, or could be understood in two ways."""
    return Unsupported(f"malformed request: {message}", status=400)


def end_of_head(received: bytearray, scanned: int, limit: int) -> int | None:
    """Where the first head in what was received ends; None where more must arrive.

    :param scanned: how many of these bytes an earlier call has seen already.
    :param limit: the most bytes that a head may have, request line and empty line included.
    :raises RegistryError: 400 at a control character (so a TLS hello on a plain port is answered at once),
        431 where the limit is reached before the end.
    """
    found = received.find(_END, max(0, scanned - len(_END) + 1), limit)
    end = None if found < 0 else found + len(_END)
    if _has_control(received, scanned, end or limit):
        raise malformed("control character")
    if end is None and len(received) >= limit:
        raise Unsupported(f"the request's header block is larger than {limit} bytes", status=431)
    return end


def _has_control(received: bytearray, scanned: int, stop: int) -> bool:
    """Whether there is a control character, CR and LF as pairs excepted.

    A CR that is the last byte may yet become a pair.
    """
    start = scanned - received.endswith(b"\r", 0, scanned)
    unpaired = received[start:stop].removesuffix(b"\r").replace(b"\r\n", b"")
    return bool(unpaired.translate(None, _TEXT))


def origin_form(head: bytes) -> bytes:
    """The same head with its target in origin-form, ready for Twisted's parser.

    An absolute-form target's authority takes the place of ``Host`` (RFC 9112 section 3.2.2).

    :raises RegistryError: where the framing or the addressee could be understood in two ways.
    """
    line, *fields = head[: -len(_END)].split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3:
        raise malformed("request line")
    method, target, version = parts
    _check_fields(fields, version)
    path, authority = _addressed(target)
    if authority is None:
        return head
    kept = [field for field in fields if not field.lower().startswith(b"host:")]
    return b"\r\n".join((b"%b %b %b" % (method, path, version), b"Host: " + authority, *kept, b"", b""))


def _check_fields(fields: list[bytes], version: bytes) -> None:
    hosts = []
    for field in fields:
        if field[0] in b" \t":
            raise malformed("folded header")
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts.append(value)
        # Twisted passes over "identity", and reads a coding that HTTP/1.0 does not know.
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == b"HTTP/1.0"):
            raise malformed("transfer coding")
        elif name == b"content-length" and not _LENGTH.fullmatch(value):
            raise malformed("content length")
    if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts) or not all(map(_HOST.fullmatch, hosts)):
        raise malformed("host")


def _addressed(target: bytes) -> tuple[bytes, bytes | None]:
    """The target in origin-form, and the authority where the target names one."""
    if not target.isascii():
        raise malformed("target")
    if target.startswith(b"/"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise malformed("target")
    return (absolute[2] or b"/") + (absolute[3] or b""), absolute[1]
