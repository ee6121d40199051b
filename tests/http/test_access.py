"""Who may use the mirror, and where a request really comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.http.access import ClientAddress, NetworkAccess
from dockmirror.oci.errors import Denied
from dockmirror.system.networks import is_within, parse_address, parse_networks

PROXY, INNER, STRANGER = "127.0.0.1", "10.0.0.5", "203.0.113.9"
FORWARDED = [
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP"),
    *("CF-Connecting-IP", "True-Client-IP"),
]
BELIEVED = [PROXY, "10.0.0.0/8"]
ADDRESSES = st.ip_addresses()
STRANGERS = ADDRESSES.map(str).filter(
    lambda text: not is_within(parse_address(text), parse_networks(BELIEVED))
)


def access(
    trust_proxy: Iterable[str] = (), served: Iterable[str] = ("public",), unix: bool = False
) -> NetworkAccess:
    """An access of these networks."""
    return NetworkAccess(tuple(parse_networks(served)), tuple(parse_networks(trust_proxy)), unix)


def headers(**fields: str | list[str]) -> Callable[[str], list[str]]:
    """A request's headers, by name with an underscore for each hyphen; ``Host`` is there in any case."""
    lines = {"host": ["mirror.example:8080"]}
    for name, value in fields.items():
        lines[name.replace("_", "-").lower()] = [value] if isinstance(value, str) else value
    return lambda name: lines.get(name.lower(), [])


def admitted(
    by: NetworkAccess, peer: str | None = PROXY, secure: bool = False, **fields: str | list[str]
) -> ClientAddress:
    """The client that is let in."""
    client = by.client(peer, secure, headers(**fields))
    by.check(client)
    return client


def denied(by: NetworkAccess, peer: str | None = PROXY, **fields: str | list[str]) -> str:
    """Why it is not let in."""
    with pytest.raises(Denied) as caught:
        by.check(by.client(peer, False, headers(**fields)))
    assert caught.value.status == 403
    return str(caught.value)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "192.168.1.2", "::1", "fe80::1%eth0", "fd00::1"])
def test_by_default_a_private_network_is_served(peer: str) -> None:
    """Nothing has to be decided to use it at home."""
    assert admitted(NetworkAccess(), peer) == ClientAddress(
        parse_address(peer), "http", "mirror.example:8080"
    )


@pytest.mark.parametrize("peer", [STRANGER, "8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8"])
def test_by_default_nobody_else_is(peer: str) -> None:
    """And is told which setting decides it."""
    assert "'networks'" in denied(NetworkAccess(), peer)


def test_the_operator_says_who_is_served() -> None:
    """Instead of the private networks, not beside them."""
    by = access(served=["203.0.113.0/24", "2001:db8::/32"])
    assert admitted(by, STRANGER).address == IPv4Address(STRANGER)
    assert admitted(by, "2001:db8::1").address == IPv6Address("2001:db8::1")
    for peer in ("127.0.0.1", "10.0.0.1", "::1", "203.0.114.1"):
        assert "'networks'" in denied(by, peer)


@given(ADDRESSES)
def test_a_mapped_address_is_the_one_that_it_maps(address: IPv4Address | IPv6Address) -> None:
    """As a dual-stack socket shows it: it is served, or not, as that one is."""
    peer = f"::ffff:{address}" if address.version == 4 else str(address)
    by = access(served=["0.0.0.0/0"])
    if isinstance(parse_address(peer), IPv4Address):
        assert admitted(by, peer) == admitted(by, str(parse_address(peer)))
    else:
        assert "'networks'" in denied(by, peer)


@pytest.mark.parametrize("header", FORWARDED)
@pytest.mark.parametrize("value", ["", "127.0.0.1", "https", "for=127.0.0.1"])
def test_forwarded_headers_of_others_are_refused(header: str, value: str) -> None:
    """Whoever they come from: a proxy that was not named would make the whole world look private."""
    for by in (access(), access(["10.0.0.0/8"]), access(unix=True), NetworkAccess()):
        assert "'trust_proxy'" in denied(by, PROXY, **{header: value})
    for by in (access([PROXY]), NetworkAccess()):
        assert "'trust_proxy'" in denied(by, None, **{header: value})


def test_a_proxy_that_is_believed_tells_who_asks() -> None:
    """And it is the one who asks that has to be served."""
    assert admitted(access([PROXY]), X_Forwarded_For=STRANGER).address == IPv4Address(STRANGER)
    assert "'networks'" in denied(access([PROXY], ["private"]), X_Forwarded_For=STRANGER)
    assert admitted(access([PROXY], ["203.0.113.0/24"]), X_Forwarded_For=STRANGER)
    assert "'networks'" in denied(access([PROXY], ["203.0.113.0/24"]), X_Forwarded_For=INNER)


def test_a_mapped_proxy_is_believed_too() -> None:
    """It is the same proxy, whatever socket it came by."""
    by = access([PROXY])
    assert admitted(by, f"::ffff:{PROXY}", X_Forwarded_For=f"::ffff:{STRANGER}").address == IPv4Address(
        STRANGER
    )


@pytest.mark.parametrize(
    ("lines", "origin"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["10.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1, 203.0.113.9, 10.0.0.5"], "203.0.113.9"),
        (["127.0.0.1, 203.0.113.9", "10.0.0.5"], "203.0.113.9"),
        (["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (["10.0.0.7, 10.0.0.5"], "10.0.0.7"),
        (["not an address, 203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9,"], "203.0.113.9"),
        ([" , 203.0.113.9 , ,10.0.0.5"], "203.0.113.9"),
        (["203.0.113.9:5000, 10.0.0.5:80"], "203.0.113.9"),
        (["[2001:db8::1]:5000"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["[::ffff:203.0.113.9]:1"], "203.0.113.9"),
        ([""], "127.0.0.1"),
    ],
)
def test_the_chain_is_read_from_the_right(lines: list[str], origin: str) -> None:
    """To the last address that no believed proxy is at: what stands before it, a client may have sent."""
    by = access(BELIEVED)
    assert admitted(by, X_Forwarded_For=lines).address == ip_address(origin)


@given(st.lists(st.sampled_from([PROXY, INNER, "10.9.9.9"])), STRANGERS, st.lists(ADDRESSES.map(str)))
def test_nobody_can_pretend(proxies: list[str], stranger: str, sent: list[str]) -> None:
    """Whatever a client sends, it is known by the address that the first proxy saw."""
    seen = ", ".join([stranger, *proxies])
    assert admitted(access(BELIEVED), X_Forwarded_For=[*sent, seen]).address == parse_address(stranger)


@pytest.mark.parametrize(
    "hop", ["unknown", "_hidden", "203.0.113", "203.0.113.9.1", "[]", "a:b:c", "1.2.3.4:5:6", "-"]
)
def test_a_chain_that_makes_no_sense_is_refused(hop: str) -> None:
    """Nobody is let in by mistake."""
    assert "X-Forwarded-For" in denied(access([PROXY]), X_Forwarded_For=hop)
    assert "X-Forwarded-For" in denied(access([PROXY]), X_Forwarded_For=f"{STRANGER}, {hop}")


def test_a_unix_socket_has_no_address() -> None:
    """Who can open it was decided by its permissions."""
    assert admitted(access(served=["192.0.2.0/24"]), None) == ClientAddress(
        None, "http", "mirror.example:8080"
    )


def test_a_proxy_at_a_unix_socket_is_believed_where_that_is_said() -> None:
    """As any other; networks are not asked for it, but for who asks through it."""
    by = access(served=["private"], unix=True)
    assert admitted(by, None, X_Forwarded_For=INNER).address == IPv4Address(INNER)
    assert "'networks'" in denied(by, None, X_Forwarded_For=STRANGER)
    told = admitted(by, None, X_Forwarded_For=INNER, X_Forwarded_Proto="https")
    assert told == ClientAddress(IPv4Address(INNER), "https", "mirror.example:8080")


def test_without_a_proxy_the_connection_tells() -> None:
    """Scheme and host as the client used them: the realm has to be the same."""
    assert admitted(access(), secure=True).scheme == "https"
    assert admitted(access(), Host=" a.example ").host == "a.example"
    assert admitted(access(), Host=[]).host == ""


@pytest.mark.parametrize(
    ("fields", "scheme", "host"),
    [
        ({"X-Forwarded-Proto": "https"}, "https", "mirror.example:8080"),
        ({"X-Forwarded-Proto": "http, https"}, "https", "mirror.example:8080"),
        ({"X-Forwarded-Proto": ["https", "http"]}, "http", "mirror.example:8080"),
        ({"X-Forwarded-Host": "a.example:5000"}, "http", "a.example:5000"),
        ({"X-Forwarded-Host": "evil.example, a.example"}, "http", "a.example"),
        ({"X-Forwarded-Host": "[::1]:80"}, "http", "[::1]:80"),
        ({"X-Real-IP": "192.0.2.1"}, "http", "mirror.example:8080"),
    ],
)
def test_a_proxy_tells_what_the_client_used(
    fields: dict[str, str | list[str]], scheme: str, host: str
) -> None:
    """The nearest one's word is the last; what it does not tell is as it is here."""
    client = access([PROXY]).client(PROXY, False, headers(**{"X-Forwarded-For": "10.9.9.9", **fields}))
    assert (client.scheme, client.host) == (scheme, host)


@pytest.mark.parametrize("name", ["X-Real-IP", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_a_proxy_that_hides_who_asks_is_refused(name: str) -> None:
    """Its own address, which may be private, would stand for the whole world."""
    with pytest.raises(Denied, match="X-Forwarded-For"):
        access([PROXY]).client(PROXY, False, headers(**{name: "https"}))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("X-Forwarded-Proto", value) for value in ("", "ftp", "https,", "javascript", "https://")),
        *(
            ("X-Forwarded-Host", value)
            for value in ("", "a/b", "a b", 'a"', "a:port", "a:1:2", "a@b", "a\r\nb", "é")
        ),
    ],
)
def test_what_a_proxy_tells_must_make_sense(header: str, value: str) -> None:
    """It would stand in the realm that clients send their passwords to."""
    assert "makes no sense" in denied(access([PROXY]), **{"X-Forwarded-For": INNER, header: value})


FORWARDED = ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP"]
ODD = ["[::1]:5", "1.2.3.4:x", "::ffff:1.2.3.4%lo", ",", "[", "https"]
FIELDS = st.dictionaries(st.sampled_from(FORWARDED), st.lists(st.text(max_size=30) | st.sampled_from(ODD)))


@given(FIELDS, st.booleans(), st.booleans())
def test_no_header_is_too_odd(fields: dict[str, list[str]], believed: bool, secure: bool) -> None:
    """Whoever sends whatever is somebody, or is refused; and who is not believed has the address it has."""
    access = NetworkAccess(trust_proxy=tuple(parse_networks(["10.0.0.0/8"])) if believed else ())
    try:
        client = access.client("10.0.0.1", secure, lambda name: fields.get(name, []))
    except Denied:
        return
    assert client.scheme in ("http", "https")
    assert believed or client.address == ip_address("10.0.0.1")
