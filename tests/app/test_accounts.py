"""Several accounts of the mirror at one upstream, each for some repositories."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from dockmirror.app.accounts import (
    REST,
    AccountChoice,
    Accounts,
    load_accounts,
    load_credentials,
    password_variables,
)
from dockmirror.app.naming import name_at_upstream
from dockmirror.app.start_check import find_start_problems
from dockmirror.app.telemetry import read_worker_state
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings, UpstreamSettings
from dockmirror.oci.request import Repository
from dockmirror.oci.token import Credentials, Login
from dockmirror.status import AccountStatus, Quota
from dockmirror.system.external_program import ProcessResult

from ..answering import now
from ..fake_registry import basic, digest
from ..fakes import Reply
from ..house import DOMAIN, House
from ..programs import program
from ..scraped import scraped
from .account_registry import BLOB, CDN, HOST, NOBODY, PASSWORDS, USERS, SharedRegistry
from .cached_house import StoringHouse

VIRTUAL = f"work.{DOMAIN}"
MANIFEST = "/v2/{}/manifests/latest"
RESOURCES = (MANIFEST, "/v2/{}/tags/list", f"/v2/{{}}/blobs/{digest(BLOB)}")
TEAM_A = {"name": "team-a", "repositories": ["a/*", "shared"], "username": "a"}
TEAM_B = {"name": "team-b", "repositories": ["*/two", "**"], "username": "b"}


def settings_with(*accounts: dict[str, Any], **upstream: Any) -> Settings:
    """Return the settings of a mirror with these accounts at one upstream."""
    table = {"url": f"https://{HOST}", "accounts": list(accounts), **upstream}
    return load({"networks": ["private"], "upstreams": {"work": table}}, {})


def choice_of(settings: Settings) -> AccountChoice:
    return AccountChoice("work", settings.upstreams["work"])


@pytest.mark.parametrize(
    ("name", "account"),
    [("a/one", "team-a"), ("a/two", "team-a"), ("b/two", "team-b"), ("a/b/c", REST), ("shared", "team-a")],
)
def test_the_first_account_that_matches_is_chosen(name: str, account: str) -> None:
    team_b = {**TEAM_B, "repositories": ["*/two"]}
    assert choice_of(settings_with(TEAM_A, team_b)).choose(Repository(name)) == account


def test_the_registry_as_a_whole_is_asked_with_the_account_for_the_rest() -> None:
    """Even if an account matches every repository."""
    assert choice_of(settings_with(TEAM_A, TEAM_B)).choose(None) == REST


def test_each_account_has_a_cache_partition() -> None:
    """A change of its name or of its login begins a new one; without an account it is the upstream's."""
    repository = Repository("a/one")
    settings = [
        settings_with(),
        settings_with(username="a"),
        settings_with(TEAM_A),
        settings_with({**TEAM_A, "username": "other"}),
        settings_with({**TEAM_A, "name": "other"}),
    ]
    partitions = [choice_of(each).cache_partition(repository) for each in settings]
    assert len(set(partitions)) == len(settings)
    assert partitions[0] == choice_of(settings[2]).cache_partition(Repository("c/one"))
    assert [choice_of(each).has_account(repository) for each in settings] == [False, *[True] * 4]
    assert not choice_of(settings[2]).has_account(Repository("c/one"))


@pytest.mark.parametrize(
    ("name", "registry", "partition"),
    [
        ("quay", "quay.io", "quay"),
        ("quay", "inner.example", "quay@inner.example"),
        ("work", "inner.example", "work@inner.example"),
        ("work", "outer.example", "work@outer.example"),
    ],
)
def test_registries_of_one_name_have_cache_partitions_of_their_own(
    name: str, registry: str, partition: str
) -> None:
    """Mirrors that share a bucket may have different registries under one name."""
    settings = UpstreamSettings(registry=registry, url=(f"https://{registry}",))
    assert AccountChoice(name, settings).cache_partition() == partition


def test_each_account_has_a_password(tmp_path: Path) -> None:
    """It is in a file or in a variable, whose name has that of the account behind two underscores."""
    file = tmp_path / "password"
    file.write_text("from a file\n")
    settings = settings_with({**TEAM_A, "password_file": str(file)}, TEAM_B, username="rest")
    environ = {key: PASSWORDS[key] for key in PASSWORDS if not key.endswith("_A")}
    assert load_credentials(settings, environ) == {
        ("work", REST): Credentials.basic("rest", USERS["rest"]),
        ("work", "team-a"): Credentials.basic("a", "from a file"),
        ("work", "team-b"): Credentials.basic("b", USERS["b"]),
    }
    assert set(PASSWORDS) <= password_variables(settings)


def test_a_credential_helper_may_be_an_account(tmp_path: Path) -> None:
    path = program(tmp_path / "helper", "")
    account = {"name": "team-a", "repositories": ["a/*"], "credential_helper": path}
    runs = RecordedRuns()
    accounts = load_accounts(settings_with(account), {}, runs, Clock())
    assert list(accounts["work"]) == ["team-a"]
    assert now(accounts["work"]["team-a"].login()) == Login(Credentials.basic("AWS", "s3cret"))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"DOCKMIRROR_PASSWORD_WORK": "x"},
            "upstreams.work.accounts.0.username: expected a password for it, .*_WORK__TEAM_A",
        ),
        (
            {**PASSWORDS, "DOCKMIRROR_PASSWORD_WORK__C": "x"},
            "_WORK__C: expected an upstream, or one of its acc",
        ),
    ],
)
def test_passwords_and_accounts_belong_together(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_credentials(settings_with(TEAM_A, TEAM_B, username="rest"), environ)


def test_a_check_finds_accounts_without_passwords_and_passwords_without_accounts() -> None:
    """All of them at once, before a start."""
    environ = {"DOCKMIRROR_PASSWORD_WORK__TEAM_A": "x", "DOCKMIRROR_PASSWORD_WORK__TEAM_C": "x"}
    problems = find_start_problems(settings_with(TEAM_A, TEAM_B), environ, MemoryReactorClock())
    variable, password = (each for each in problems if each.startswith(("the env", "upstreams")))
    assert variable == (
        "the environment: DOCKMIRROR_PASSWORD_WORK__TEAM_C: there is no such upstream or account"
    )
    assert password.startswith("upstreams.work.accounts.1.username: expected a password for it")


def test_a_variable_stands_for_one_account() -> None:
    """The names of an account and of an upstream may lead to the same variable."""
    other = {"url": "https://other.example", "username": "c"}
    table = {"url": f"https://{HOST}", "accounts": [TEAM_A]}
    settings = load({"networks": ["private"], "upstreams": {"work": table, "work--team-a": other}}, {})
    with pytest.raises(ConfigurationError, match=r"means both upstreams\.work\.accounts\.0 and"):
        load_credentials(settings, {"DOCKMIRROR_PASSWORD_WORK__TEAM_A": "x"})


class RecordedRuns(list[tuple[Sequence[str], Mapping[str, str], bytes]]):
    """Programs that would have run; each gives the same answer."""

    async def __call__(
        self, command: Sequence[str], environ: Mapping[str, str], request: bytes
    ) -> ProcessResult:
        self.append((command, environ, request))
        return ProcessResult(0, b'{"Username":"AWS","Secret":"s3cret"}')


def accounts_of(
    runs: RecordedRuns, environ: dict[str, str], **upstreams: dict[str, Any]
) -> dict[str, Accounts]:
    """Return the accounts of a mirror with these upstreams."""
    settings = load({"networks": ["private"], "upstreams": upstreams}, environ)
    return load_accounts(settings, environ, runs, Clock())


@pytest.mark.parametrize("by_path", [True, False])
def test_a_credential_helper_is_found_by_name_or_path(tmp_path: Path, by_path: bool) -> None:
    """It is asked for the registry's host and port, without the mirror's own variables.

    They may hold the passwords of other upstreams.
    """
    path = program(tmp_path / "docker-credential-ecr-login", "")
    runs = RecordedRuns()
    helper = path if by_path else "ecr-login"
    environ = {"PATH": str(tmp_path), "DOCKMIRROR_PASSWORD_GHCR": "s3cret", "DOCKMIRROR_GRACE": "1"}
    work = {"url": "https://registry.example:5000", "credential_helper": helper}
    accounts = accounts_of(runs, environ, work=work, ghcr={"username": "alice"})
    assert now(accounts["ghcr"][REST].login()) == Login(Credentials.basic("alice", "s3cret"))
    assert now(accounts["work"][REST].login()) == Login(Credentials.basic("AWS", "s3cret"))
    assert runs == [([path, "get"], {"PATH": str(tmp_path)}, b"registry.example:5000")]


def test_a_helper_knows_docker_hub_by_its_old_address(tmp_path: Path) -> None:
    runs = RecordedRuns()
    path = program(tmp_path / "helper", "")
    now(accounts_of(runs, {}, docker={"credential_helper": path})["docker"][REST].login())
    assert [request for _, _, request in runs] == [b"https://index.docker.io/v1/"]


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"credential_helper": "none"}, "expected a program; docker-credential-none is missing"),
        ({"credential_helper": "/nowhere/helper"}, "expected a program; /nowhere/helper is missing"),
        ({"credential_helper": "/etc/passwd"}, "expected a program; /etc/passwd is missing"),
        ({"credential_helper": "/bin/true", "username": "alice"}, "expected no 'username' beside it"),
    ],
)
def test_an_unusable_helper_is_refused_at_start(upstream: dict[str, Any], message: str) -> None:
    environ = {"PATH": "/usr/bin", **({"DOCKMIRROR_PASSWORD_DOCKER": "x"} if "username" in upstream else {})}
    with pytest.raises(ConfigurationError, match=f"^upstreams.docker.credential_helper: {message}"):
        accounts_of(RecordedRuns(), environ, docker=upstream)


VARIABLE = "DOCKMIRROR_PASSWORD_MY_LAN"


def load_own(environ: dict[str, str], **upstream: Any) -> dict[tuple[str, str], Credentials]:
    """Return the credentials of a mirror with one more upstream, ``my-lan``."""
    table = {"url": "https://lan.example", **upstream}
    settings = load({"networks": ["private"], "upstreams": {"my-lan": table}}, environ)
    return load_credentials(settings, environ)


@pytest.mark.parametrize("password", ["s3cret", " two words ", "line\n", "\r", "pässwörd", "a:b"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_password_file_may_end_with_a_newline(tmp_path: Path, password: str, end: str) -> None:
    """All other characters belong to the password; one in the environment wins."""
    file = tmp_path / "password"
    file.write_bytes(f"{password}{end or chr(10) * password.endswith(chr(10))}".encode())
    settings = {"username": "alice", "password_file": str(file)}
    assert load_own({}, **settings) == {("my-lan", REST): Credentials.basic("alice", password)}
    assert load_own({VARIABLE: "b"}, **settings) == {("my-lan", REST): Credentials.basic("alice", "b")}
    assert load_own({}) == {}


@pytest.mark.parametrize(
    ("environ", "username", "written", "message"),
    [
        ({}, "alice", None, rf"^upstreams\.my-lan\.username: expected a password .* {VARIABLE}$"),
        ({VARIABLE: ""}, "alice", None, r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\n", r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\xff", r"^upstreams\.my-lan\.password_file: expected text"),
        ({}, None, b"s3cret", r"^upstreams\.my-lan\.password_file: expected a 'username'"),
        ({VARIABLE: "s3cret"}, None, None, rf"^the environment: {VARIABLE}: expected an upstream"),
        ({"DOCKMIRROR_PASSWORD_LAN": "s3cret"}, None, None, "^the environment: DOCKMIRROR_PASSWORD_LAN: "),
    ],
)
def test_a_missing_user_name_or_password_is_refused(
    tmp_path: Path, environ: dict[str, str], username: str | None, written: bytes | None, message: str
) -> None:
    """One line names the setting, and not the password."""
    file = tmp_path / "password"
    file.write_bytes(written or b"")
    upstream = {"username": username, "password_file": None if written is None else str(file)}
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_own(environ, **upstream)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.fixture
def world() -> SharedRegistry:
    return SharedRegistry()


@pytest.fixture
def house(world: SharedRegistry, tmp_path: Path) -> Iterator[StoringHouse]:
    running = StoringHouse(world, tmp_path, PASSWORDS, **world.settings())
    yield running
    running.close()


@pytest.mark.parametrize("takes_tokens", [True, False])
@pytest.mark.parametrize("host", [VIRTUAL, DOMAIN])
def test_each_repository_is_asked_for_with_its_account(
    world: SharedRegistry, house: StoringHouse, host: str, takes_tokens: bool
) -> None:
    """Manifests, lists and blobs; by tokens and by passwords; on both hosts."""
    world.takes_tokens = takes_tokens
    for name, user in (("a/one", "a"), ("b/one", "b"), ("c/one", "rest")):
        world.given.clear()
        path = name if host == VIRTUAL else f"{HOST}/{name}"
        assert [house.get(host, each.format(path)).status for each in RESOURCES] == [200] * 3
        assert world.given == {(user, name)}
    assert house.get(host, f"/v2/_catalog?ns={HOST}").status == 200
    assert world.wrong == []


def test_a_mirror_without_a_cache_asks_with_each_account(world: SharedRegistry) -> None:
    house = House(world, PASSWORDS, **world.settings())
    for name in ("a/one", "b/one", "c/one"):
        assert [house.get(VIRTUAL, each.format(name)).status for each in RESOURCES] == [200] * 3
    assert world.given == {("a", "a/one"), ("b", "b/one"), ("rest", "c/one")}
    assert world.wrong == []


def test_accounts_of_an_upstream_below_a_path(world: SharedRegistry, tmp_path: Path) -> None:
    """Their patterns are without the path; a redirect out of it carries no credentials."""
    settings = world.settings()
    settings["upstreams"]["work"].update(url=f"https://{HOST}/proxy", registry="images.example")
    world.patterns = (("proxy/a/*",), ("proxy/b/*",))
    world.readers.update(
        {name: set(USERS) for name in ("proxy/a/one", "proxy/b/one", "proxy/c/one", "a/one")}
    )
    house = StoringHouse(world, tmp_path, PASSWORDS, **settings)
    try:
        for name in ("a/one", "b/one", "c/one"):
            assert house.get(VIRTUAL, MANIFEST.format(name)).status == 200
        world.takes_tokens = False
        world.redirects = {"proxy/a/one": "a/one"}
        assert house.get(VIRTUAL, "/v2/a/one/tags/list").status == 403
        assert world.seen[-1].path == "/v2/a/one/tags/list"
        assert world.seen[-1].authorization is None
    finally:
        house.close()
    assert world.given == {("a", "proxy/a/one"), ("b", "proxy/b/one"), ("rest", "proxy/c/one")}
    assert world.wrong == []


def test_offline_the_last_account_of_a_repository_counts(world: SharedRegistry, house: StoringHouse) -> None:
    """Nothing is served as another account's, and nothing is asked."""
    settings, blob = world.settings(), RESOURCES[2].format("a/one")
    settings["upstreams"]["work"]["offline"] = True
    assert house.get(VIRTUAL, blob).status == 200
    before = len(world.seen)
    house.reload(**settings)
    assert house.get(VIRTUAL, blob).status == 200
    first, second = settings["upstreams"]["work"]["accounts"]
    first["repositories"], second["repositories"] = second["repositories"], first["repositories"]
    house.reload(**settings)
    assert house.get(VIRTUAL, blob).status == 404
    assert len(world.seen) == before


def test_rights_of_one_account_are_not_those_of_another(world: SharedRegistry, house: StoringHouse) -> None:
    """Nor is the account for the rest asked if one that matches is refused."""
    world.readers["a/one"] = {"b", "rest"}
    assert house.get(VIRTUAL, MANIFEST.format("a/one")).status == 403
    assert world.given == set()


def test_a_download_of_one_account_is_joined_only_with_the_rights_of_another(
    world: SharedRegistry, house: StoringHouse
) -> None:
    """The same blob is in repositories of both."""
    world.reply(CDN, f"/{digest(BLOB)}", Reply(200, BLOB).cut(10, end="stalled"))
    world.readers["b/one"] = {"a", "rest"}
    first = house.connect().ask("GET", VIRTUAL, RESOURCES[2].format("a/one"))
    house.settle()
    assert house.get(VIRTUAL, RESOURCES[2].format("b/one")).status == 403
    world.go_on(BLOB[10:])
    house.settle()
    assert first.answer.body == BLOB
    assert world.given == {("a", "a/one")}


def test_what_one_account_was_given_is_asked_for_again_with_another(
    world: SharedRegistry, house: StoringHouse
) -> None:
    """The operator has moved the repository; content by digest is held, and is public among the clients."""
    paths = [each.format("a/one") for each in RESOURCES]
    for path in paths:
        assert house.get(VIRTUAL, path).status == 200
    world.readers["a/one"] = {"a"}
    assert [house.get(VIRTUAL, path).status for path in paths] == [200] * 3
    world.patterns = (("c/*",), ("a/*",))
    house.reload(**world.settings())
    assert [house.get(VIRTUAL, path).status for path in paths] == [403] * 3
    world.readers["a/one"].add("b")
    house.pass_time(601)
    assert [house.get(VIRTUAL, path).status for path in paths] == [200] * 3


@pytest.mark.parametrize("takes_tokens", [True, False])
def test_a_redirect_to_another_accounts_repository_carries_no_credentials(
    world: SharedRegistry, house: StoringHouse, takes_tokens: bool
) -> None:
    """One to a repository of the same account carries a password."""
    world.takes_tokens = takes_tokens
    world.patterns = (("a/*", "c/*"), ("b/*",))
    house.reload(**world.settings())
    world.redirects = {"a/one": "b/one"}
    assert house.get(VIRTUAL, MANIFEST.format("a/one")).status == 403
    assert world.wrong == []
    assert world.seen[-1].url == f"https://{HOST}/v2/b/one/manifests/latest"
    assert world.seen[-1].authorization is None
    if not takes_tokens:  # a token is for one repository
        world.redirects = {"a/one": "c/one"}
        house.pass_time(601)
        assert house.get(VIRTUAL, MANIFEST.format("a/one")).status == 200


def test_a_limit_of_one_account_is_not_that_of_another(world: SharedRegistry, house: StoringHouse) -> None:
    world.limited = {"a"}
    assert [house.get(VIRTUAL, MANIFEST.format(name)).status for name in ("a/one", "b/one", "c/one")] == [
        429,
        200,
        200,
    ]
    before = len(world.seen)
    assert house.get(VIRTUAL, "/v2/a/one/tags/list").status == 429
    assert len(world.seen) == before
    assert house.get(VIRTUAL, "/v2/b/one/tags/list").status == 200


def test_quotas_are_those_of_each_account(world: SharedRegistry, house: StoringHouse) -> None:
    """Metrics and the status have them by the names of the accounts."""
    for name in ("a/one", "b/one", "c/one"):
        house.get(VIRTUAL, MANIFEST.format(name))
    told, samples = house.clock.seconds(), scraped(house.metrics.registry)
    left = {
        labels: value
        for (name, labels), value in samples.items()
        if name == "dockmirror_upstream_ratelimit_remaining"
    }
    assert left == {("", "work"): 90, ("team-a", "work"): 80, ("team-b", "work"): 70}
    state = now(read_worker_state(house.serving.settings, house.watched.upstreams, None, {}))
    (work,) = (each for each in state.upstreams if each.name == "work")
    assert work.quota == Quota(told, 100, 90)
    assert work.accounts == (
        AccountStatus("team-a", Quota(told, 100, 80)),
        AccountStatus("team-b", Quota(told, 100, 70)),
    )


def test_clients_cannot_log_in_beside_accounts(world: SharedRegistry, house: StoringHouse) -> None:
    """Not even for a repository that no account is for; their credentials go nowhere."""
    login = f"Authorization: {basic('rest', USERS['rest'])}"
    assert house.get(VIRTUAL, "/v2/").status == 200
    assert house.get(VIRTUAL, "/v2/", login).error == (403, "DENIED")
    assert world.seen == []


def test_the_rest_is_pulled_anonymously_without_an_account_for_it(tmp_path: Path) -> None:
    world = SharedRegistry()
    world.readers["c/one"].add(NOBODY)
    settings = world.settings()
    del settings["upstreams"]["work"]["username"]
    environ = {key: value for key, value in PASSWORDS.items() if not key.endswith("_WORK")}
    house = StoringHouse(world, tmp_path, environ, **settings)
    try:
        assert house.get(VIRTUAL, MANIFEST.format("c/one")).status == 200
        assert house.get(VIRTUAL, MANIFEST.format("a/one")).status == 200
        assert world.given == {(NOBODY, "c/one"), ("a", "a/one")}
    finally:
        house.close()


def test_accounts_are_chosen_by_the_names_at_the_upstream() -> None:
    """Clients may know the repository by another name."""
    settings = settings_with(TEAM_A, rewrite={"public": "a"}, short_names="complete")
    upstream = settings.upstreams["work"]
    assert choice_of(settings).choose(name_at_upstream(upstream, Repository("public/one"))) == "team-a"
    assert name_at_upstream(upstream, Repository("one")) == Repository("library/one")
