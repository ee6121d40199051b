"""Random sequences of events: no account's credentials reach a repository that is not its own."""

# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ..fake_registry import basic, digest
from ..house import DOMAIN
from ..long import LONG
from .account_registry import (
    BLOB,
    HOST,
    IMAGES,
    NOBODY,
    PASSWORDS,
    REPOSITORIES,
    USERS,
    Patterns,
    SharedRegistry,
    owner,
)
from .cached_house import StoringHouse

HOURS = 3600.0

names = st.sampled_from(REPOSITORIES)
users = st.sampled_from(sorted(USERS))
hosts = st.sampled_from([f"work.{DOMAIN}", DOMAIN])
logins = st.sampled_from([None, *(basic(*user) for user in USERS.items())])
resources = st.sampled_from(
    [
        "manifests/latest",
        "tags/list",
        f"blobs/{digest(BLOB)}",
        *(f"manifests/{digest(m)}" for m in IMAGES.values()),
    ]
)
moves = st.sampled_from(
    [
        (("a/*",), ("b/*",)),
        (("a/one",), ("a/*", "b/*")),
        (("b/*",), ("a/*",)),
        (("c/*",), ("a/one",)),
        (("a/*", "b/*"), ("c/*",)),
    ]
)


class Model(RuleBasedStateMachine):
    """Three repositories, two accounts for some of them, and one for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.world = SharedRegistry()

    @initialize(patterns=moves, takes_tokens=st.booleans())
    def begin(self, patterns: Patterns, takes_tokens: bool) -> None:
        self.world.patterns, self.world.takes_tokens = patterns, takes_tokens
        root = Path(self.directory.name)
        self.house = StoringHouse(self.world, root, PASSWORDS, **self.world.settings())

    def reload(self, patterns: Patterns) -> None:
        """The operator moves repositories to other accounts."""
        self.world.patterns = patterns
        self.house.reload(**self.world.settings())

    @rule(name=names, user=users, may=st.booleans())
    def let(self, name: str, user: str, may: bool) -> None:
        readers = self.world.readers[name]
        readers.add(user) if may else readers.discard(user)

    @rule(name=names, other=names, host=hosts, resource=resources)
    def request_what_is_elsewhere(self, name: str, other: str, host: str, resource: str) -> None:
        """The registry redirects to the same content in another repository."""
        self.world.redirects = {name: other} if name != other else {}
        self.request(host, name, resource, "GET", None)
        self.world.redirects = {}

    @rule(patterns=moves, name=names, host=hosts, resource=resources)
    def request_before_and_after_a_move(
        self, patterns: Patterns, name: str, host: str, resource: str
    ) -> None:
        """Content that one account was given is not served as what another one may have."""
        self.request(host, name, resource, "GET", None)
        self.reload(patterns)
        self.request(host, name, resource, "GET", None)

    @rule(user=st.none() | users)
    def limit(self, user: str | None) -> None:
        self.world.limited = set() if user is None else {user}

    @rule(tag=st.sampled_from(sorted(IMAGES)))
    def publish(self, tag: str) -> None:
        self.world.tag = tag

    @rule(takes_tokens=st.booleans())
    def authenticate_by(self, takes_tokens: bool) -> None:
        self.world.takes_tokens = takes_tokens
        self.world.forget_tokens()

    @rule(seconds=st.sampled_from([1.0, 61.0, 290.0, HOURS, 25 * HOURS]))
    def wait(self, seconds: float) -> None:
        self.house.pass_time(seconds)

    @rule(host=hosts, name=names, resource=resources, method=st.sampled_from(["GET", "HEAD"]), login=logins)
    def request_once(self, host: str, name: str, resource: str, method: str, login: str | None) -> None:
        self.request(host, name, resource, method, login)

    def request(self, host: str, name: str, resource: str, method: str, login: str | None) -> None:
        """A client gets what the account of the repository was given of it, and nothing else."""
        prefix = f"{HOST}/" if host == DOMAIN else ""
        headers = [f"Authorization: {login}"] if login else []
        answer = self.house.ask(method, host, f"/v2/{prefix}{name}/{resource}", *headers)
        assert answer.status in (200, 403, 404, 429, 502)
        if answer.status == 200:
            user = owner(name, self.world.patterns)
            source = self.world.redirects.get(name, name)
            assert {(user, name), (user, source), (NOBODY, source)} & self.world.given
            if method == "GET" and "blobs" in resource:
                assert answer.body == BLOB

    @rule(host=hosts)
    def list_repositories(self, host: str) -> None:
        """The catalog is that of the account for the rest."""
        query = f"?ns={HOST}" if host == DOMAIN else ""
        assert self.house.ask("GET", host, f"/v2/_catalog{query}").status in (200, 429, 403, 502)

    @rule(login=logins)
    def ping(self, login: str | None) -> None:
        """The mirror answers ``/v2/`` itself, and takes no logins."""
        before = len(self.world.seen)
        headers = [f"Authorization: {login}"] if login else []
        answer = self.house.ask("GET", f"work.{DOMAIN}", "/v2/", *headers)
        assert answer.status == (403 if login else 200)
        assert len(self.world.seen) == before

    @invariant()
    def credentials_go_where_they_belong(self) -> None:
        assert self.world.wrong == []

    def teardown(self) -> None:
        self.house.close()
        self.directory.cleanup()


TestModel = Model.TestCase
TestModel.settings = hypothesis_settings(
    max_examples=100 if LONG else 12, stateful_step_count=25, deadline=None
)
