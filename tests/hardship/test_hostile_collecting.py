"""Upstreams that would have credentials, or the mirror itself, go elsewhere (CVE-2026-33540 and its kin)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, product
from urllib.parse import urlsplit

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.accounts import ALICE
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import Chain, new_chain
from tests.integration.parts.images import artifact
from tests.integration.parts.server import Exchange, Meddling, Server

from .rows import Record, hardship

pytestmark = pytest.mark.integration

LATE = "late.test"
"""A name that comes to be a private address's while the mirror runs."""
METADATA = (
    "http://169.254.169.254/", "http://169.254.169.254.:80/latest", "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::169.254.169.254]/", "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::]/", "http://[fd00:ec2::254]/", "http://2852039166/", "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/", "http://169.254.43518/", "http://metadata.test/",
    "http://100.100.100.200/", "http://[fe80::a9fe:a9fe%25lo]/",
)  # fmt: skip
PRIVATE = (
    "http://10.0.0.1/", "http://192.168.1.1/", "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::10.0.0.1]/",
    "http://[fc00::1]/", "http://0.0.0.0/", "http://[::]/", "http://private.test/", "http://100.64.0.1/",
    "http://[2002:a00:1::]/", "http://224.0.0.1/", f"http://{LATE}/",
)  # fmt: skip
NAMES = {"169.254.169.254": "metadata.test", "10.0.0.1": f"private.test {LATE}"}


class Collector(Server):
    """A host of somebody else's, which keeps what it is sent."""

    def __init__(self) -> None:
        class Keep(_Keep):
            collector = self

        super().__init__("127.0.0.6", Keep)
        self.requests: list[tuple[str, str | None, bytes]] = []


class _Keep(Exchange):
    collector: Collector

    def do_GET(self) -> None:
        body = self.body() if self.command == "POST" else b""
        self.collector.requests.append((self.path, self.headers.get("Authorization"), body))
        self.answer(200, json.dumps({"token": "of-the-collector"}).encode(), Content_Type="application/json")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET


@dataclass(frozen=True)
class World:
    """The mirror, its upstream, and somebody else."""

    chain: Chain
    collector: Collector


@pytest.fixture(scope="module")
def world(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Iterator[World]:
    """The collector lies where the upstream's blobs may lie: it is not its address that keeps things away."""
    machine = make_machine()
    upstream = {"timeout": 3, "connect_timeout": 2, "writes": True, "allow_networks": ["127.0.0.0/8"]}
    with ExitStack() as stack:
        collector = stack.enter_context(Collector())
        chain = stack.enter_context(new_chain(directory("chain"), machine, authority, upstream, tag_ttl=0))
        with (machine.etc / "hosts").open("a") as hosts:
            hosts.writelines(f"{address} {names}\n" for address, names in NAMES.items())
        yield World(chain, collector)


def _secrets(world: World) -> list[str]:
    return [ALICE.password, ALICE.basic.removeprefix("Basic "), *world.chain.tokens.issued]


def _collected(world: World) -> list[object]:
    """The collector's requests that had a secret."""
    return [
        request
        for request in world.collector.requests
        if any(each in str(request) for each in _secrets(world))
    ]


REALMS = (
    "{collector}/token", "{collector}", "http://{front}@{address}/token", "http://{front}\\@{address}/token",
    "http://{address}#@{front}/", "http://{address}?@{front}/", "http://{address}\\.{front}/",
    "//{address}/token", "HTTP://{address}/token", " {collector}/token", "http:{address}/token",
    "http:///{address}/token", "http://{address}%2f@{front}/token", "http://{front}.{address}/token",
    "javascript:{collector}", "",
)  # fmt: skip


def _written(form: str, world: World) -> str:
    collector, front = world.collector, world.chain.front
    return form.format(
        collector=collector.url, address=f"{collector.host}:{collector.port}", front=front.netloc
    )


@hardship("hostile: realms that collect passwords")
def test_realms(world: World, came: Record) -> None:
    """A foreign token service is sent no password, by any way to log in."""
    chain, tried = world.chain, 0
    repository = "private/collected"
    chain.registry.push(repository, artifact("collected"), "latest")
    docker = chain.mirror.setting("upstreams")["docker"]
    # The realm of an upstream is remembered for minutes, so each is tried at an upstream of its own.
    names = [f"realm{number}" for number in range(len(REALMS))]
    upstreams = {name: {**docker, "aliases": [f"{name}.test"]} for name in names}
    chain.mirror.configure(upstreams={"docker": docker, **upstreams})
    chain.mirror.stop()
    chain.mirror.start()
    for name, form in zip(names, REALMS, strict=True):
        realm = _written(form, world)

        def challenges(exchange: Exchange, realm: str = realm) -> bool:
            challenge = f'Bearer realm="{realm}",service="s",scope="repository:{repository}:pull"'
            exchange.answer(401, b'{"errors": []}', WWW_Authenticate=challenge)
            return True

        with chain.front.meddled_with(challenges):
            alice = chain.mirror.client(name, ALICE)
            answers = [alice.manifest(repository, "latest").status]
            named = {"Host": chain.mirror.host(name), "Content-Type": "application/x-www-form-urlencoded"}
            login = f"grant_type=password&username=alice&password={ALICE.password}&service=s"
            answers.append(alice.bare("POST", "/v2/auth", login.encode(), named).status)
            answers.append(
                alice.bare("GET", f"/v2/auth?account=alice&password={ALICE.password}", None, named).status
            )
            tried += len(answers)
        assert all(status >= 400 for status in answers), (realm, answers)
        assert _collected(world) == [], realm
    came(f"{tried} refused, nothing collected")


REDIRECTS = (
    "{collector}/x", "//{address}/x", "http://{front}@{address}/x", "http://{front}\\@{address}/x",
    "http://{address}#@{front}/", "http://{front}:80\\{address}/x",
)  # fmt: skip


@hardship("hostile: redirects that collect credentials")
def test_redirects(world: World, came: Record) -> None:
    """The token of a client, and the password to a token service, go to no host that it is redirected to."""
    chain, numbers = world.chain, count()
    for form in REDIRECTS:
        to = _written(form, world)

        def redirects(exchange: Exchange, to: str = to) -> bool:
            if exchange.path == "/v2/" or "Authorization" not in exchange.headers:
                return False
            exchange.answer(307, Location=to)
            return True

        repository = f"private/redirected{next(numbers)}"
        pushed = artifact(repository)
        chain.registry.push(repository, pushed, "latest")
        for part in ("front", "tokens"):
            with getattr(chain, part).meddled_with(redirects):
                alice = chain.mirror.client("docker", ALICE)
                for answer in (
                    alice.manifest(repository, "latest"),
                    alice.blob(repository, pushed.layers[0].digest),
                    alice.request("POST", f"/v2/{repository}/blobs/uploads/", b""),
                ):
                    assert answer.body not in (pushed.manifest.data, pushed.layers[0].data)
        assert _collected(world) == [], to
    came(f"nothing collected, of {next(numbers) * 6} requests; {len(world.collector.requests)} without any")


ADDRESSES = [
    pytest.param(kind, addresses, marks=hardship(f"hostile: {kind} addresses, by realm, redirect and upload"))
    for kind, addresses in (("metadata", METADATA), ("private", PRIVATE))
]


@pytest.mark.parametrize(("kind", "addresses"), ADDRESSES)
def test_addresses(world: World, kind: str, addresses: tuple[str, ...], came: Record) -> None:
    """The mirror connects to no forbidden address, in any notation or by any name."""
    chain, wrong = world.chain, []
    client = chain.mirror.client("docker", ALICE)
    for number, (way, address) in enumerate(product(WAYS, addresses)):
        if address == addresses[0]:  # the challenge of ``/v2/`` is remembered for minutes
            chain.mirror.stop()
            chain.mirror.start()
        repository = f"library/{kind}{number}"
        with chain.front.meddled_with(WAYS[way](address)):
            if way == "upload":
                answer = client.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
                location = answer.headers["Location"]
                if answer.status < 300 and location:  # the mirror's own name for it, where the bytes go
                    answer = client.request("PATCH", _path(location), b"bytes")
            else:
                answer = client.manifest(repository, "latest")
        if answer.status < 400 or not any(reason in answer.body for reason in REFUSALS):
            wrong.append(f"{way} to {address}: {answer.status} {answer.body!r}")
    assert not wrong, "\n".join(wrong)
    came(f"{len(addresses)} forms, by {len(WAYS)} ways: refused")


REFUSALS = (
    b"its address is not allowed",
    b"no address",
    b"invalid URL",
    b"invalid upload location",
    b"names no token service",
    b"cannot be resolved",
    b"invalid IPv6 host",
)
"""Why nothing was connected to."""


def _path(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"


def _realm(address: str) -> Meddling:
    def answer(exchange: Exchange) -> bool:
        if exchange.path == "/v2/":  # each time, what a repository demands is learnt anew then
            exchange.answer(200, b"{}")
        else:
            challenge = f'Bearer realm="{address}",service="s"'
            exchange.answer(401, b'{"errors": []}', WWW_Authenticate=challenge)
        return True

    return answer


def _redirect(address: str) -> Meddling:
    def answer(exchange: Exchange) -> bool:
        exchange.answer(307, Location=address)
        return True

    return answer


def _upload(address: str) -> Meddling:
    def answer(exchange: Exchange) -> bool:
        if exchange.command == "POST" and "Authorization" in exchange.headers:
            exchange.body()
            exchange.answer(202, Location=address)
            return True
        return False

    return answer


WAYS = {"redirect": _redirect, "upload": _upload, "realm": _realm}
