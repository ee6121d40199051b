"""Random sequences of events: no client gets content that the upstream does not give it."""

from __future__ import annotations

from attrs import frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dockmirror.concurrency.backoff import is_outage
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError, TooManyRequests, Unreachable
from dockmirror.oci.header_fields import Range
from dockmirror.oci.request import RegistryRequest, repository_of

from ..shelf import image
from .mirrors import DAY, Mirror, body, header
from .origin import EVERYBODY, NOBODY, Origin

TTL = LONGEST = 60.0
GRANTED, PUBLIC, STALE = 300.0, DAY, 7 * DAY
CONFIG = b"configuration"
LAYERS = [b"layer %d " % n * 10 for n in range(3)]
IMAGES = {Digest.of(image(CONFIG, layer)): image(CONFIG, layer) for layer in LAYERS}
CONTENTS = {Digest.of(data): data for data in (CONFIG, *LAYERS, *IMAGES.values())}
names = st.sampled_from(["a/x", "b/y"])
clients = st.sampled_from([None, "alice", "bob"])
digests = st.sampled_from(sorted(CONTENTS, key=str))
outages = st.sampled_from([Unreachable(), RegistryError(status=500), TooManyRequests()])
times = st.sampled_from(
    [1.0, TTL - 1, TTL, TTL + 1, GRANTED - 1, GRANTED, 3600.0, PUBLIC - 1, 2 * PUBLIC, STALE]
)


@frozen
class Said:
    """The upstream's last answer about a client: allowed, refused, or none (None)."""

    at: float
    allowed: bool | None


class Remembering(Origin):
    """An upstream that remembers what it said.

    :ivar said: of each repository, to each client, what it said last of whether he may pull.
    :ivar silent: when it last said nothing, to each client.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[tuple[str, str], Said] = {}
        self.silent: dict[str, float] = {}
        self.now = 0.0

    async def answer(self, request: RegistryRequest, who: str) -> Answer:
        key = str(repository_of(request.target)), who
        try:
            answer = await super().answer(request, who)
        except RegistryError as error:
            if is_outage(error):
                self.silent[who] = self.now
                if error.status != 429:  # then it is left alone, for everybody
                    self.silent[NOBODY] = self.now
            elif error.status == 401:
                self.said[key] = Said(self.now, False)
            raise
        self.said[key] = Said(self.now, True)
        return answer


class Model(RuleBasedStateMachine):
    """Two repositories, two clients and strangers, with and without outages."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = Remembering()
        self.mirror = Mirror(self.origin, tag_ttl=TTL)
        self.clock = self.mirror.clock
        self.names: dict[str, list[tuple[float, Digest | None]]] = {"a/x": [], "b/y": []}
        self.has: dict[str, set[Digest]] = {"a/x": set(), "b/y": set()}

    @initialize(readers=st.sets(st.sampled_from([EVERYBODY, "alice", "bob"])))
    def begin(self, readers: set[str]) -> None:
        self.origin.shelf("a/x")
        self.origin.shelf("b/y", readers)
        for name in self.names:
            self.publish(name, LAYERS[0])

    @rule(name=names, layer=st.sampled_from(LAYERS))
    def publish(self, name: str, layer: bytes) -> None:
        manifest = self.origin.shelf(name).publish(CONFIG, layer)
        self.names[name].append((self.clock.seconds(), Digest.of(manifest)))
        self.has[name] |= {Digest.of(data) for data in (CONFIG, layer, manifest)}

    @rule(name=names)
    def withdraw(self, name: str) -> None:
        self.origin.shelf(name).tags.clear()
        self.names[name].append((self.clock.seconds(), None))

    @rule(name=names, who=st.sampled_from([EVERYBODY, "alice", "bob"]), may=st.booleans())
    def let(self, name: str, who: str, may: bool) -> None:
        readers = self.origin.shelf(name).readers
        readers.add(who) if may else readers.discard(who)

    @rule(name=names)
    def close(self, name: str) -> None:
        self.origin.shelf(name).readers.clear()

    @rule(error=st.none() | outages, who=st.none() | st.sampled_from([NOBODY, "alice"]))
    def trouble(self, error: RegistryError | None, who: str | None) -> None:
        """The upstream fails for one client or for all, or recovers."""
        self.origin.trouble = error if who is None else None
        self.origin.troubles = {who: error} if who is not None and error is not None else {}

    @rule(seconds=times)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(digest=digests)
    def evict(self, digest: Digest) -> None:
        self.mirror.store.evict(digest)

    @rule()
    def restart(self) -> None:
        self.mirror = self.mirror.restarted(tag_ttl=TTL)

    @rule(name=names, who=clients, head=st.booleans())
    def ask_by_tag(self, name: str, who: str | None, head: bool) -> None:
        """The tag's manifest is a recent one, or an older one with a warning."""
        answer = self.asked(name, f"{name}/manifests/latest", who, head=head)
        if answer is None:
            return
        digest = answer.body.descriptor.digest
        assert digest in IMAGES
        assert body(answer) == (b"" if head else IMAGES[digest])
        believed = TTL if self.said_to(name, NOBODY) else 0.0
        if header(answer, "Warning"):
            believed = STALE
            assert self.is_silent(NOBODY, who)
        assert digest in self.named_since(name, self.clock.seconds() - believed)

    @rule(name=names, who=clients, digest=digests, head=st.booleans())
    def ask_for_a_manifest(self, name: str, who: str | None, digest: Digest, head: bool) -> None:
        """The manifest has that digest, and this repository has it."""
        answer = self.asked(name, f"{name}/manifests/{digest}", who, head=head)
        if answer is not None:
            assert digest in self.has[name] & IMAGES.keys()
            assert body(answer) == (b"" if head else CONTENTS[digest])

    @rule(name=names, who=clients, digest=digests, wanted=st.sampled_from(["GET", "HEAD", "2-5"]))
    def ask_for_a_blob(self, name: str, who: str | None, digest: Digest, wanted: str) -> None:
        """The blob has that digest, and this repository has it."""
        path = f"{name}/blobs/{digest}"
        answer = self.asked(name, path, who, head=wanted == "HEAD", range=Range.parse(f"bytes={wanted}"))
        if answer is not None:
            assert digest in self.has[name] - IMAGES.keys()
            data = CONTENTS[digest]
            assert body(answer) == {"GET": data, "HEAD": b"", "2-5": data[2:6]}[wanted]

    @rule(name=names, who=clients)
    def pull(self, name: str, who: str | None) -> None:
        self.ask_by_tag(name, who, False)
        for digest in IMAGES:
            self.ask_for_a_manifest(name, who, digest, False)
        for digest in CONTENTS:
            self.ask_for_a_blob(name, who, digest, "GET")

    def asked(self, name: str, path: str, who: str | None, **details: object) -> Answer | None:
        """Return the answer, or None for a justified refusal."""
        self.origin.now = self.clock.seconds()
        (answer,) = self.mirror.later(path, who, **details)
        if isinstance(answer, Answer):
            assert self.may_be_given(name, who)
            return answer
        assert isinstance(answer, RegistryError)
        assert not self.must_be_given(name, path, who)
        return None

    def may_be_given(self, name: str, who: str | None) -> bool:
        """Return whether the upstream has allowed it lately to this client or to all."""
        own = self.said_to(name, who or NOBODY)
        if who is not None and own is not None and self.clock.seconds() - own < GRANTED:
            return True
        everybody = self.said_to(name, NOBODY)
        limit = STALE if self.is_silent(NOBODY) else PUBLIC
        return everybody is not None and self.clock.seconds() - everybody < limit

    def must_be_given(self, name: str, path: str, who: str | None) -> bool:
        """Return whether the upstream has it, allows it, and has not failed lately."""
        shelf = self.origin.shelf(name)
        reference = path.rpartition("/")[2]
        there = {*shelf.tags, *map(str, shelf.manifests if "/manifests/" in path else shelf.blobs)}
        free = (
            not self.origin.trouble and not self.origin.troubles and not self.is_silent(*self.origin.silent)
        )
        return free and reference in there and bool(shelf.readers & {EVERYBODY, who})

    def said_to(self, name: str, who: str) -> float | None:
        """Return when the upstream allowed it, if that is its last answer."""
        said = self.origin.said.get((name, who))
        return said.at if said and said.allowed else None

    def is_silent(self, *whom: str | None) -> bool:
        """Return whether a recent failure for one of them may still keep the circuit open."""
        now = self.clock.seconds()
        return any(now - self.origin.silent.get(who or NOBODY, -LONGEST) <= LONGEST for who in whom)

    def named_since(self, name: str, start: float) -> set[Digest | None]:
        """Return the manifests that the tag has named since that time."""
        history = self.names[name]
        ends = [at for at, _ in history[1:]] + [float("inf")]
        return {digest for (_, digest), end in zip(history, ends, strict=True) if end > start}

    @invariant()
    def nothing_stays_open(self) -> None:
        assert self.mirror.store.faults.opened == 0


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
