"""The head of a request as bytes: buffered, delimited, and checked before Twisted parses it.

Twisted itself rejects two lengths, a length beside a transfer coding, names that are no tokens, spaces in the
target, and versions other than 1.0 and 1.1.  Only what it lets pass is checked here.
"""

from __future__ import annotations

import re

from ..oci.errors import RegistryError, Unsupported
from .tls_hello import is_tls_hello

_END = b"\r\n\r\n"
_TEXT = bytes([9, *range(32, 127), *range(128, 256)])
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@:][^/?#@]*)(/[^?]*)?(\?.*)?", re.DOTALL)
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(:[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")


def malformed_request(message: str) -> RegistryError:
    """Return the error for a request that is invalid or ambiguous."""
    return Unsupported(f"malformed request: {message}", status=400)


def find_head_end(received: bytearray, scanned: int, limit: int) -> int | None:
    """Return the index behind the first head; None if more must arrive.

    :param scanned: how many of these bytes an earlier call has scanned.
    :param limit: the most bytes that a head may have, request line and empty line included.
    :raises RegistryError: 400 at a control character (so a TLS hello on a plain port is answered at once),
        431 when the limit is reached before the end.
    """
    found = received.find(_END, max(0, scanned - len(_END) + 1), limit)
    end = None if found < 0 else found + len(_END)
    if _has_control(received, scanned, end or limit):
        raise malformed_request("control character")
    if end is None and len(received) >= limit:
        raise Unsupported(f"the request's header block is larger than {limit} bytes", status=431)
    return end


def _has_control(received: bytearray, scanned: int, stop: int) -> bool:
    """Tell whether there is a control character, CR and LF as pairs excepted.

    A CR that is the last byte may yet become a pair.
    """
    start = scanned - received.endswith(b"\r", 0, scanned)
    unpaired = received[start:stop].removesuffix(b"\r").replace(b"\r\n", b"")
    return bool(unpaired.translate(None, _TEXT))


def to_origin_form(head: bytes) -> bytes:
    """Return the head with its target in origin-form, ready for Twisted's parser.

    An absolute-form target's authority replaces ``Host`` (RFC 9112 section 3.2.2).

    :raises RegistryError: when the framing or the target host is ambiguous.
    """
    line, *fields = head[: -len(_END)].split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3:
        raise malformed_request("request line")
    method, target, version = parts
    _check_fields(fields, version)
    path, authority = _split_target(target)
    if authority is None:
        return head
    other_fields = [field for field in fields if not field.lower().startswith(b"host:")]
    return b"\r\n".join(
        (b"%b %b %b" % (method, path, version), b"Host: " + authority, *other_fields, b"", b"")
    )


def _check_fields(fields: list[bytes], version: bytes) -> None:
    hosts = []
    for field in fields:
        if field[0] in b" \t":
            raise malformed_request("folded header")
        name, _, value = field.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            hosts.append(value)
        # Twisted ignores "identity", and decodes chunks that HTTP/1.0 does not define.
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == b"HTTP/1.0"):
            raise malformed_request("transfer coding")
        elif name == b"content-length" and not _LENGTH.fullmatch(value):
            raise malformed_request("content length")
    if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts) or not all(map(_HOST.fullmatch, hosts)):
        raise malformed_request("host")


def _split_target(target: bytes) -> tuple[bytes, bytes | None]:
    """Return the target in origin-form, and its authority if it has one."""
    if not target.isascii():
        raise malformed_request("target")
    if target.startswith(b"/"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise malformed_request("target")
    return (absolute[2] or b"/") + (absolute[3] or b""), absolute[1]


class HeadBuffer:
    """The input of a connection that has not been processed: request heads, and the bytes between them.

    :param head_bytes: the most that a head may have.
    :ivar has_partial_head: True if a head has begun to arrive and is not complete.
    """

    def __init__(self, head_bytes: int) -> None:
        self.has_partial_head = False
        self._head_bytes = head_bytes
        self._bytes = bytearray()
        self._scanned = 0  # of an incomplete head

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def is_tls_hello(self) -> bool:
        """The buffered bytes begin a TLS handshake instead of a head."""
        return is_tls_hello(self._bytes)

    def add(self, data: bytes) -> None:
        self._bytes += data

    def put_back(self, data: bytes) -> None:
        """Insert bytes before the buffered ones."""
        self._bytes[:0] = data

    def take(self) -> bytes:
        """Remove and return all bytes."""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def take_head(self) -> bytes | None:
        """Remove the next head and return it in origin-form; None if more must arrive.

        :raises RegistryError: when it is malformed or too large.
        """
        while self._bytes.startswith(b"\r\n"):  # to be ignored, RFC 9112 section 2.2
            del self._bytes[:2]
            self._scanned = 0
        if not self._bytes:
            return None
        end = find_head_end(self._bytes, self._scanned, self._head_bytes)
        if end is None:
            self.has_partial_head, self._scanned = True, len(self._bytes)
            return None
        head = to_origin_form(bytes(self._bytes[:end]))
        del self._bytes[:end]
        self.has_partial_head, self._scanned = False, 0
        return head
