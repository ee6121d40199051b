"""Consent is bytes: held content is given to nobody because an upstream redirects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from twisted.internet.task import Clock

from dockmirror.interfaces import Answer
from dockmirror.oci.consent import SAMPLE
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import BlobUnknown, ManifestUnknown, RegistryError
from dockmirror.oci.header_fields import Range, format_etag
from dockmirror.upstream.registry_client import HEADS_AVOIDED_TTL

from ..answering import watch
from ..fakes import World
from ..shelf import image
from .mirrors import DAY, Mirror, Store, body, header
from .origin import EVERYBODY, NOBODY
from .redirecting import Consent, Origin, RedirectingRegistry, Redirects

GRANTED, PUBLIC = 300.0, DAY
CONFIG, LAYER = b"configuration", b"layer " * 100
MANIFEST = image(CONFIG, LAYER)
IMAGE = {Digest.of(data): data for data in (CONFIG, LAYER, MANIFEST)}
OTHERWISE = ["page", "json", "forged", "down", "refusing"]
WAYS: dict[str, dict[str, Any]] = {
    "GET": {},
    "HEAD": {"head": True},
    "Range": {"range": Range.starting_at(0, 1)},
    "If-None-Match": {"if_none_match": "*"},
}


class Mirrors:
    """Mirrors of two registries, ``private.example`` and ``other.example``, over one store."""

    def __init__(self) -> None:
        self.clock, self.world = Clock(), World()
        self.clock.advance(1_700_000_000.0)
        self.store = Store(self.clock)
        self.private, self.other = (
            RedirectingRegistry(host, self.world, self.clock) for host in ("private.example", "other.example")
        )
        self._mirrors = {each.host: self._mirror(each) for each in (self.private, self.other)}

    def _mirror(self, registry: RedirectingRegistry) -> Mirror:
        return Mirror(Origin(registry), self.clock, self.store, registry.host, registry=registry.host)

    def restart(self) -> None:
        self._mirrors = {each.host: self._mirror(each) for each in (self.private, self.other)}

    def ask(
        self, registry: RedirectingRegistry, path: str, who: str | None = None, **details: Any
    ) -> Answer | RegistryError:
        mirror = self._mirrors[registry.host]
        outcome = watch(mirror.registry.fetch(mirror.request(path, who, **details)))
        self.world.agent.flush()
        (answer,) = outcome
        assert isinstance(answer, Answer | RegistryError)
        return answer

    def read(self, answer: Answer) -> bytes | None:
        """Return the delivered bytes, or None if they were cut off."""
        try:
            return body(answer)
        except RegistryError:
            return None

    def get(self, registry: RedirectingRegistry, path: str, who: str | None = None, **details: Any) -> bytes:
        answer = self.ask(registry, path, who, **details)
        assert isinstance(answer, Answer), answer
        return body(answer)

    def links(self, registry: RedirectingRegistry) -> set[Digest]:
        """Return the contents that are linked to any repository of the registry."""
        host = f"{registry.host}/"
        return {digest for place, digest, _ in self.store.contents.links if str(place).startswith(host)}


@pytest.fixture
def mirrors() -> Mirrors:
    """Alice has pulled her private image; the other registry redirects everything to an empty server."""
    mirrors = Mirrors()
    for data in IMAGE.values():
        mirrors.private.put("me/app", data, {"alice"}, tag="latest")
    assert mirrors.get(mirrors.private, f"me/app/manifests/{Digest.of(MANIFEST)}", "alice") == MANIFEST
    for data in (CONFIG, LAYER):
        assert mirrors.get(mirrors.private, f"me/app/blobs/{Digest.of(data)}", "alice") == data
    mirrors.private.take()
    mirrors.other.redirects = "everything"
    return mirrors


def paths(repository: str = "any/name") -> list[str]:
    kinds = {digest: "manifests" if data == MANIFEST else "blobs" for digest, data in IMAGE.items()}
    return [f"{repository}/{kind}/{digest}" for digest, kind in kinds.items()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("who", [None, "mallory"])
def test_a_redirect_is_no_consent(mirrors: Mirrors, path: str, way: str, who: str | None) -> None:
    """A client that knows a digest gets nothing by it, and no link stays in the store."""
    details = WAYS[way]
    if way == "If-None-Match":
        details = {"if_none_match": format_etag(Digest.parse(path.rpartition("/")[2]))}
    answer = mirrors.ask(mirrors.other, path, who, **details)
    assert isinstance(answer, BlobUnknown | ManifestUnknown)
    assert mirrors.links(mirrors.other) == set()


@pytest.mark.parametrize("target", OTHERWISE)
@pytest.mark.parametrize("path", paths())
def test_something_else_is_no_consent(mirrors: Mirrors, path: str, target: Any) -> None:
    """A web page, a document, other bytes of the same size, a failure and a refusal prove nothing."""
    mirrors.other.target = target
    for details in WAYS.values():
        answer = mirrors.ask(mirrors.other, path, **details)
        if isinstance(answer, Answer):
            assert mirrors.read(answer) not in IMAGE.values()
    assert mirrors.links(mirrors.other) == set()


@pytest.mark.parametrize("path", paths())
def test_what_is_given_there_is_served_from_the_cache(mirrors: Mirrors, path: str) -> None:
    """The manifest proves itself by its bytes, a blob by a few of them, which are not fetched again."""
    digest = Digest.parse(path.rpartition("/")[2])
    mirrors.other.put("any/name", IMAGE[digest], set())
    mirrors.other.there["any/name"] = {digest}
    answer = mirrors.ask(mirrors.other, path)
    assert isinstance(answer, Answer)
    assert body(answer) == IMAGE[digest]
    assert header(answer, "Cache-Status") == "dockmirror; hit"
    assert mirrors.other.take() == [f"HEAD {path}", f"GET {path}", f"GET > {path}"]
    assert mirrors.get(mirrors.other, path) == IMAGE[digest]
    assert mirrors.other.take() == []


def test_a_head_is_not_sent_in_vain(mirrors: Mirrors) -> None:
    """The mirror remembers for an hour that an upstream redirects HEADs."""
    config, layer = Digest.of(CONFIG), Digest.of(LAYER)
    for waiting, methods in ((0.0, "HGG"), (HEADS_AVOIDED_TTL - 1, "GG"), (1.0, "HGG")):
        mirrors.clock.advance(waiting)
        for digest in (config, layer)[: 1 if waiting else 2]:
            mirrors.ask(mirrors.other, f"any/name/blobs/{digest}")
            asked = "".join(line[0] for line in mirrors.other.take())
            assert asked == (methods if digest is config else "GG")


def test_a_tag_that_is_redirected_is_confirmed_by_bytes(mirrors: Mirrors) -> None:
    """Its HEAD is not followed: the manifest is fetched, and nobody is served another repository's."""
    path = "any/name/manifests/latest"
    assert isinstance(mirrors.ask(mirrors.other, path), ManifestUnknown)
    digest = mirrors.other.put("any/name", MANIFEST, set(), tag="latest")
    mirrors.other.there["any/name"] = {digest}
    assert mirrors.get(mirrors.other, path) == MANIFEST
    mirrors.clock.advance(60)
    mirrors.other.there["any/name"] = set()
    assert isinstance(mirrors.ask(mirrors.other, path), ManifestUnknown)


def test_a_404_of_the_target_revokes_nothing(mirrors: Mirrors) -> None:
    """It denies that digest; what the repository gives besides is served as before."""
    config, layer = Digest.of(CONFIG), Digest.of(LAYER)
    mirrors.other.put("any/name", CONFIG, set())
    mirrors.other.there["any/name"] = {config}
    for who in (None, "alice"):
        assert mirrors.get(mirrors.other, f"any/name/blobs/{config}", who) == CONFIG
        assert isinstance(mirrors.ask(mirrors.other, f"any/name/blobs/{layer}", who), BlobUnknown)
        mirrors.other.take()
        assert mirrors.get(mirrors.other, f"any/name/blobs/{config}", who) == CONFIG
        assert mirrors.other.take() == []


@pytest.mark.parametrize("target", ["down", "refusing"])
def test_a_target_that_fails_is_an_outage(mirrors: Mirrors, target: Any) -> None:
    """Public content is served meanwhile, stale if it could not be confirmed."""
    digest = mirrors.other.put("any/name", MANIFEST, set(), tag="latest")
    for data in (CONFIG, LAYER):
        mirrors.other.put("any/name", data, set())
    mirrors.other.there["any/name"] = set(IMAGE)
    for path in ("any/name/manifests/latest", *paths()):
        mirrors.get(mirrors.other, path)
    mirrors.other.target = target
    mirrors.clock.advance(2 * DAY)
    mirrors.other.take()
    answer = mirrors.ask(mirrors.other, "any/name/manifests/latest")
    assert isinstance(answer, Answer)
    assert answer.body.descriptor.digest == digest
    assert header(answer, "Warning")
    redirects = [line for line in mirrors.other.take() if ">" not in line and line.startswith("GET")]
    assert len(redirects) == (2 if target == "refusing" else 1)


def test_a_head_that_is_answered_is_enough(mirrors: Mirrors) -> None:
    """No GET is sent, which for a manifest would count against a quota."""
    mirrors.restart()
    for path in paths("me/app"):
        mirrors.clock.advance(GRANTED)
        assert mirrors.get(mirrors.private, path, "alice") in IMAGE.values()
        assert set(mirrors.private.take()) == {f"HEAD {path}"}
    mirrors.clock.advance(GRANTED)
    assert mirrors.get(mirrors.private, "me/app/manifests/latest", "alice") == MANIFEST
    assert mirrors.private.take() == ["GET me/app/manifests/latest"]  # it was never asked for by its tag
    mirrors.clock.advance(GRANTED)
    assert mirrors.get(mirrors.private, "me/app/manifests/latest", "alice") == MANIFEST
    assert mirrors.private.take() == ["HEAD me/app/manifests/latest"]


@pytest.mark.parametrize("path", paths())
def test_a_404_says_nothing_of_what_is_held(mirrors: Mirrors, path: str) -> None:
    """Refusals of GET and HEAD read the same whether the content is stored or not."""
    unheld = path.rpartition(":")[0] + ":" + "0" * 64
    redirections: list[Redirects] = ["everything", "nothing"]
    for redirects in redirections:
        mirrors.other.redirects = redirects
        mirrors.other.readers["any/name"] = {EVERYBODY}
        errors = [mirrors.ask(mirrors.other, each, **details) for each in (path, unheld)
                  for details in (WAYS["GET"], WAYS["HEAD"])]  # fmt: skip
        told = [(type(each), each.status, each.entries) for each in errors if isinstance(each, RegistryError)]
        assert len(told) == 4
        assert all(each == told[0] for each in told)


def test_a_refusal_says_nothing_of_what_is_held(mirrors: Mirrors) -> None:
    """A 401 by digest reads the same, too; its challenge stays."""
    mirrors.other.redirects = "nothing"
    errors = [mirrors.ask(mirrors.other, path, who) for who in (None, "mallory")
              for path in (*paths(), f"any/name/blobs/sha256:{'0' * 64}")]  # fmt: skip
    told = [
        (each.status, each.entries, each.challenges) for each in errors if isinstance(each, RegistryError)
    ]
    assert len(told) == 8
    assert all(each == told[0] for each in told)
    assert [challenge.scheme for challenge in told[0][2]] == ["Basic"]


def test_the_empty_blob_needs_no_question(mirrors: Mirrors) -> None:
    """It tells nobody anything; asking for it makes no link."""
    empty = mirrors.private.put("me/app", b"", {"alice"})
    assert mirrors.get(mirrors.private, f"me/app/blobs/{empty}", "alice") == b""
    assert mirrors.get(mirrors.other, f"any/name/blobs/{empty}") == b""
    assert mirrors.other.take() == []
    assert mirrors.links(mirrors.other) == set()


NAMES = ["a/x", "b/y"]
BLOBS = [b"%d" % n * size for n, size in enumerate((1, SAMPLE - 1, SAMPLE, SAMPLE + 1, 500))]
MANIFESTS = [image(blob) for blob in BLOBS[:2]]
CONTENTS = {Digest.of(data): data for data in (*BLOBS, *MANIFESTS)}
names, contents = st.sampled_from(NAMES), st.sampled_from([*BLOBS, *MANIFESTS])
clients = st.sampled_from([None, "alice", "bob"])
hosts = st.booleans()
redirections = st.sampled_from(["everything", "nothing", "by turns"])
times = st.sampled_from([1.0, 60.0, GRANTED - 1, GRANTED, HEADS_AVOIDED_TTL, PUBLIC - 1, PUBLIC])


def kind_of(data: bytes) -> str:
    return "manifests" if data in MANIFESTS else "blobs"


class Model(RuleBasedStateMachine):
    """Two registries over one store; a content is served only after consent by bytes."""

    @initialize(redirects=redirections, held=st.sets(contents))
    def begin(self, redirects: Any, held: set[bytes]) -> None:
        """One registry redirects; alice has pulled private contents from the other."""
        self.mirrors = Mirrors()
        self.mirrors.other.redirects = redirects
        for data in held:
            digest = self.mirrors.private.put("a/x", data, {"alice"})
            self.mirrors.get(self.mirrors.private, f"a/x/{kind_of(data)}/{digest}", "alice")

    def registry(self, other: bool) -> RedirectingRegistry:
        return self.mirrors.other if other else self.mirrors.private

    @rule(other=hosts, name=names, data=contents, tag=st.booleans())
    def publish(self, other: bool, name: str, data: bytes, tag: bool) -> None:
        self.registry(other).put(name, data, set(), "latest" if tag and data in MANIFESTS else None)

    @rule(other=hosts, name=names, readers=st.sets(st.sampled_from([EVERYBODY, "alice", "bob"])))
    def let(self, other: bool, name: str, readers: set[str]) -> None:
        self.registry(other).readers[name] = readers

    @rule(other=hosts, name=names, data=st.sets(contents))
    def deliver(self, other: bool, name: str, data: set[bytes]) -> None:
        """The redirect target gets contents of a repository."""
        has = self.registry(other).contents.get(name, {})
        self.registry(other).there[name] = {Digest.of(each) for each in data} & has.keys()

    @rule(other=hosts, given=st.sampled_from(["honest", *OTHERWISE]))
    def replace_target(self, other: bool, given: Any) -> None:
        """The redirect target answers with something else."""
        self.registry(other).target = given

    @rule(redirects=redirections)
    def redirect(self, redirects: Any) -> None:
        self.mirrors.other.redirects = redirects

    @rule(seconds=times)
    def wait(self, seconds: float) -> None:
        self.mirrors.clock.advance(seconds)

    @rule(data=contents)
    def evict(self, data: bytes) -> None:
        self.mirrors.store.evict(Digest.of(data))

    @rule()
    def restart(self) -> None:
        self.mirrors.restart()

    @rule(other=hosts, name=names, who=clients, data=contents, way=st.sampled_from(list(WAYS)))
    def ask(self, other: bool, name: str, who: str | None, data: bytes, way: str) -> None:
        digest = Digest.of(data)
        details = {"if_none_match": format_etag(digest)} if way == "If-None-Match" else WAYS[way]
        self.check(other, name, who, digest, f"{name}/{kind_of(data)}/{digest}", details)

    @rule(other=hosts, name=names, who=clients, way=st.sampled_from(["GET", "HEAD"]))
    def ask_by_tag(self, other: bool, name: str, who: str | None, way: str) -> None:
        """The manifest of a tag is served only after consent by bytes."""
        self.check(other, name, who, None, f"{name}/manifests/latest", WAYS[way])

    @rule(other=hosts, name=names, who=clients)
    def list(self, other: bool, name: str, who: str | None) -> None:
        answer = self.mirrors.ask(self.registry(other), f"{name}/tags/list", who)
        if isinstance(answer, Answer):
            self.mirrors.read(answer)

    def check(
        self,
        other: bool,
        name: str,
        who: str | None,
        digest: Digest | None,
        path: str,
        details: dict[str, Any],
    ) -> None:
        """Check that no stored bytes were served without consent."""
        registry = self.registry(other)
        answer = self.mirrors.ask(registry, path, who, **details)
        if not isinstance(answer, Answer):
            return
        digest = digest or answer.body.descriptor.digest
        data = self.mirrors.read(answer)
        if not data and header(answer, "Cache-Status") == "dockmirror; fwd=miss":
            return  # the upstream's headers, passed on
        if data is None or digest not in CONTENTS:
            return  # something else in its place, which was cut off, or what is no manifest
        if answer.status != 304 and not details.get("head") and data != CONTENTS[digest][: len(data)]:
            return  # a part of something else, passed through from the upstream
        assert any(self.is_valid(each, who, name) for each in registry.consents)
        assert any((each.repository, each.digest) == (name, digest) for each in registry.consents)

    def is_valid(self, consent: Consent, who: str | None, name: str) -> bool:
        """Return whether a client may be served because of this consent."""
        age = self.mirrors.clock.seconds() - consent.at
        if consent.repository != name:
            return False
        if consent.who == NOBODY:
            return age < 7 * PUBLIC
        return consent.who == who and age < GRANTED


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=50, deadline=None, phases=[Phase.generate])
