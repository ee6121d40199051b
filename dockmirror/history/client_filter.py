"""The client that a filter of pulls asks for."""

from __future__ import annotations

from ipaddress import ip_network

from ..system.networks import parse_address
from .tracker import AddressDetail, stored_client


def parse_client(text: str, addresses: AddressDetail) -> str:
    """Return an address or a network as the history writes it, or the name of a region; empty for all.

    :param addresses: the part of clients' addresses that the history keeps.
    :raises ValueError: when it is none of them; only a history of regions has names.
    """
    if not text:
        return ""
    try:
        if "/" in text:
            return str(ip_network(text, strict=False))
        address = parse_address(text)
    except ValueError:
        if addresses == "region" and "/" not in text:
            return text
        raise ValueError(f"{text} is neither an address nor a network") from None
    return stored_client(address, "network" if addresses == "network" else "full")
