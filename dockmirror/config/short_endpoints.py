"""Short forms of endpoints: ``8080``, ``:8080``, ``127.0.0.1:8080`` and ``[::]:8080``."""

from __future__ import annotations

import re

_HTTPS = "https:"
_SHORT = re.compile(
    r"(?:(?P<host>|\*|localhost|[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\]):)?(?P<port>[0-9]{1,5})"
    r"(?P<options>(?::[A-Za-z]+=(?:\\.|[^\\:])*)*)"
)
_ADDRESSES = {"localhost": "127.0.0.1"}
_MAX_PORT = 65535


def is_short_endpoint(text: str) -> bool:
    """Return whether a text is a short form, alone or after ``https:``."""
    match = _SHORT.fullmatch(text.removeprefix(_HTTPS))
    return match is not None and int(match["port"]) <= _MAX_PORT


def expand_endpoint(text: str, all_addresses: str) -> str:
    """Return the endpoint string that a short form stands for; any other text is returned unchanged.

    :param all_addresses: the interface of a form without an address.
    """
    match = _SHORT.fullmatch(text.removeprefix(_HTTPS))
    if not match:
        return text
    host = (match["host"] or "").strip("[]")
    interface = all_addresses if host in ("", "*") else _ADDRESSES.get(host, host)
    if not interface or ":interface=" in match["options"]:
        address = ""
    else:
        address = ":interface=" + interface.replace(":", "\\:")
    scheme = _HTTPS if text.startswith(_HTTPS) else ""
    return f"{scheme}tcp:{match['port']}{address}{match['options']}"
