"""Mirrors behind the gate, what it must refuse, and every route by which a client may ask for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.integration.parts.chain import Chain
from tests.integration.parts.command import dockmirror
from tests.integration.parts.images import Image, image, index_of
from tests.integration.parts.media import Content
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.plain import PlainClient, Response
from tests.integration.parts.process import wait_until
from tests.integration.parts.seaweed import CREDENTIALS
from tests.integration.parts.server import Exchange, Server

COOLED, HOOKED, RECALLED = "library/cooled", "library/hooked", "library/recalled"
KEPT = 3600
"""Seconds for which the policy server's permissions are kept."""
POLICIES = [
    {"images": f"docker.io/{COOLED}", "min_age": "7d", "digests": "known"},
    {"images": f"docker.io/{HOOKED}", "hook": True},
]
_HOSTS = ("virtual host", "own host", "namespace", "registry-mirrors")
ROUTES = (*(f"{host}: {method}" for host in _HOSTS for method in ("GET", "HEAD")), "archive: GET")
AGAIN = 180.0
"""Seconds after a fault within which all is served again: a server that fails is left alone for a minute."""
_AT_ONCE = 24
_GIVEN = (200, 206, 304, 307)


class PolicyServer(Server):
    """Refuses the digests in ``refused``, and says that this holds for no time; allows all others."""

    def __init__(self) -> None:
        class Answer(_Answer):
            policy_server = self

        super().__init__("127.0.0.1", Answer)
        self.refused: set[str] = set()
        self.asked: list[str] = []


class _Answer(Exchange):
    policy_server: PolicyServer

    def do_POST(self) -> None:
        digest = json.loads(self.body())["digest"]
        self.policy_server.asked.append(digest)
        allow = digest not in self.policy_server.refused
        verdict = {"allow": allow, "reason": "flaws", "valid_for": KEPT if allow else 0}
        self.answer(200, json.dumps(verdict).encode(), Content_Type="application/json")


@dataclass(frozen=True)
class GatedChain(Chain):
    """The upstream with the policy server, and all mirrors; ``mirror`` is the first of them."""

    hook: PolicyServer
    mirrors: tuple[Mirror, ...]


@dataclass(frozen=True)
class Wanted:
    """Something that a client asks for.

    :ivar refused: the content that it must not get by that.
    """

    repository: str
    kind: str
    reference: str
    refused: Content

    def routes(self, mirror: Mirror) -> Iterator[tuple[str, PlainClient, str, str]]:
        """Yield a name, the client, the method and the path of each way to ask for it."""
        virtual, own, path = mirror.client("docker"), mirror.client(), f"{self.kind}/{self.reference}"
        for method in ("GET", "HEAD"):
            yield "virtual host", virtual, method, f"/v2/{self.repository}/{path}"
            yield "own host", own, method, f"/v2/docker.io/{self.repository}/{path}"
            yield "namespace", own, method, f"/v2/{self.repository}/{path}?ns=docker.io"
            yield "registry-mirrors", own, method, f"/v2/{self.repository}/{path}"
        if self.kind == "manifests":
            separator = "@" if ":" in self.reference else ":"
            yield (
                "archive",
                own,
                "GET",
                f"/export?image=docker.io/{self.repository}{separator}{self.reference}",
            )

    def is_given(self, response: Response) -> bool:
        """Return True if the response gives the refused content out, or says that a client may use it."""
        by_name = self.reference != self.refused.digest
        if response.status not in _GIVEN:
            return False
        named = {response.headers["Docker-Content-Digest"], *_digests(response.headers["Location"])}
        is_inside = self.refused.data in response.body or self.refused.digest[7:].encode() in response.body
        return not by_name or self.refused.digest in named or is_inside


def _digests(location: str | None) -> list[str]:
    return [] if location is None else [f"sha256:{location.rpartition('/sha256/')[2][3:67]}"]


class Gate:
    """The images of the tests, at the upstream and in the mirrors, and the rules about them."""

    def __init__(self, chain: GatedChain) -> None:
        self.chain = chain
        self.first, self.young = image("cooled"), image("young")
        self.good, self.bad = image("good"), image("bad")
        self.standing, self.recalled = image("standing"), image("recalled", layers=(200_000, 3_000))
        self.listing = index_of(self.standing, self.recalled)

    def prepare(self) -> None:
        """Bring the allowed versions into every mirror, then the rest to the upstream; recall some."""
        push = self.chain.registry.push
        self.chain.hook.refused.add(self.bad.digest)
        push(COOLED, self.first, "latest")
        push(HOOKED, self.good, "good")
        push(RECALLED, self.standing, "moved")
        for mirror in self.chain.mirrors:
            pull(mirror, COOLED, "latest", self.first)
            pull(mirror, HOOKED, "good", self.good)
            pull(mirror, RECALLED, "moved", self.standing)
        push(COOLED, self.young, "latest")
        push(HOOKED, self.bad, "bad")
        push(RECALLED, self.recalled, "moved", "recalled")
        push(RECALLED, self.listing, "index")
        for mirror in self.chain.mirrors:
            pull(mirror, RECALLED, "recalled", self.recalled)
            pull(mirror, RECALLED, "index", self.listing)
        wait_until(self._is_given_by_every_route, "every route gives what is not recalled yet")
        for digest in (self.recalled.layers[0].digest, self.recalled.digest):
            recall = ["recall", digest, "--reason", "CVE-1", "--yes"]
            done = dockmirror(self.chain.mirror, *recall, environ=CREDENTIALS)
            assert done.returncode == 0, done.stderr
        wait_until(lambda: not self.find_given(), "all mirrors know the recall")

    def _is_given_by_every_route(self) -> bool:
        given = self.find_given()
        assert all(RECALLED in each for each in given)
        return {each.partition(" /")[0] for each in given} == set(ROUTES)

    @property
    def wanted(self) -> Sequence[Wanted]:
        """Everything that must be refused, or replaced, whatever fails."""
        manifests = [
            (COOLED, "latest", self.young), (COOLED, self.young.digest, self.young),
            (HOOKED, "bad", self.bad), (HOOKED, self.bad.digest, self.bad),
            (RECALLED, "recalled", self.recalled), (RECALLED, self.recalled.digest, self.recalled),
            (RECALLED, "moved", self.recalled),
            (RECALLED, "index", self.listing), (RECALLED, self.listing.digest, self.listing),
        ]  # fmt: skip
        layer = self.recalled.layers[0]
        return [
            *(Wanted(name, "manifests", reference, each.manifest) for name, reference, each in manifests),
            Wanted(RECALLED, "blobs", layer.digest, layer),
            Wanted(RECALLED, "blobs", self.recalled.digest, self.recalled.manifest),
        ]

    def find_given(self) -> list[str]:
        """Ask for everything that must be refused, by every route of every mirror; return what was given."""
        asking = [
            (f"{name}: {method} {path}", each, client, method, path)
            for mirror in self.chain.mirrors
            for each in self.wanted
            for name, client, method, path in each.routes(mirror)
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            given = pool.map(lambda ask: _is_given(*ask[1:]), asking)
            return [ask[0] for ask, is_given in zip(asking, given, strict=True) if is_given]

    def find_refused(self) -> list[str]:
        """Ask for everything that is allowed and held, from every mirror; return what was not given."""
        allowed = [
            (COOLED, "latest", self.first), (COOLED, self.first.digest, self.first),
            (HOOKED, "good", self.good), (HOOKED, self.good.digest, self.good),
            (RECALLED, "moved", self.standing), (RECALLED, self.standing.digest, self.standing),
        ]  # fmt: skip
        return [
            f"{repository}:{reference}"
            for mirror in self.chain.mirrors
            for repository, reference, expected in allowed
            if _body(mirror, repository, reference) != expected.manifest.data
        ]

    def await_recovery(self, name: str) -> None:
        """Wait until every mirror gives what is allowed, and an image that it has to ask about.

        :param name: of that image, which is new.
        """
        fresh, tag = image(name), name.replace(" ", "-")
        self.chain.registry.push(HOOKED, fresh, tag)
        for mirror in self.chain.mirrors:
            wait_until(
                lambda at=mirror: _body(at, HOOKED, tag) == fresh.manifest.data,  # type: ignore[misc]
                "a new image is served",
                AGAIN,
            )
        wait_until(lambda: not self.find_refused(), "everything allowed is served", AGAIN)

    def find_given_by_commands(self) -> list[str]:
        """Warm and export what must be refused, by every mirror; return what succeeded."""
        done = []
        for mirror in self.chain.mirrors:
            for each in (f"{HOOKED}:bad", f"{RECALLED}:recalled", f"{RECALLED}:index"):
                for command in (["warm", each], ["export", each, "-o", "-"]):
                    if dockmirror(mirror, *command, environ=CREDENTIALS).returncode == 0:
                        done.append(" ".join(command))
        return done


def _is_given(wanted: Wanted, client: PlainClient, method: str, path: str) -> bool:
    try:
        return wanted.is_given(client.request(method, path))
    except (http.client.HTTPException, ConnectionError):  # cut off
        return False


def _body(mirror: Mirror, repository: str, reference: str) -> bytes:
    try:
        return mirror.client("docker").manifest(repository, reference).body
    except (http.client.HTTPException, ConnectionError):
        return b""


def pull(mirror: Mirror, repository: str, reference: str, expected: Image) -> None:
    """Pull an image whole, following redirects to the bucket; a server that is slow is asked again."""
    client = mirror.client("docker")
    wait_until(
        lambda: _body(mirror, repository, reference) == expected.manifest.data, "the manifest is served"
    )
    for blob in expected.blobs:
        wait_until(
            lambda digest=blob.digest: client.blob(repository, digest).status in (200, 307),  # type: ignore[misc]
            "the blob is served",
        )
