"""The API: what it returns, what it changes, and who may use it."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dockmirror.history.pulls import HistoryError, Pull, PullFilter, PullSums, SumKey
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store.pins import Pin, add_pin, iter_pins
from dockmirror.store.warm_ups import iter_warm_ups
from tests.cli.shop import AMD, ARM, BASE, INDEX, NGINX
from tests.history.kept import KeptHistory
from tests.web.operations import CI, Endpoint, login

IMAGE = "docker.io/library/nginx:latest"
PULL = Pull(
    7, 1.0, 2.0, "10.0.0.1", "", "mirror", "docker.io",
    "library/nginx", "1", "", "", 1, 1, 9, 0, 1, 1, "served", "",
)  # fmt: skip


class FakeHistory:
    """A history of one pull, which remembers what was asked."""

    def __init__(self, error: str = "") -> None:
        self.asked: list[tuple[PullFilter, int, int]] = []
        self._error = error

    def pulls(self, filter: PullFilter, limit: int = 100, after: int = 0) -> Sequence[Pull]:
        self.asked.append((filter, limit, after))
        if self._error:
            raise HistoryError(self._error)
        return [PULL]

    def sums(self, by: SumKey, filter: PullFilter, limit: int = 1000) -> Sequence[PullSums]:
        return []


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path)


def test_images_are_listed_in_pages_without_a_token(endpoint: Endpoint) -> None:
    listed = endpoint.get("/api/v1/images").json
    assert [(each["repository"], each["tag"]) for each in listed["images"]] == [
        (str(NGINX), "1.27"), (str(NGINX), "latest"), ("ghcr.io/o/r", None),
    ]  # fmt: skip
    assert listed["images"][1]["platforms"] == {"linux/amd64": True, "linux/arm64": False}
    first = endpoint.get("/api/v1/images?limit=1").json
    assert first["next"] == str(NGINX)
    rest = endpoint.get(f"/api/v1/images?after={NGINX}").json
    assert ([each["repository"] for each in rest["images"]], rest["next"]) == (["ghcr.io/o/r"], None)
    assert endpoint.get("/api/v1/images?name=ghcr.*").json["images"] == rest["images"]


def test_the_usage_follows_a_removal_at_once(endpoint: Endpoint) -> None:
    before = endpoint.get("/api/v1/usage").json
    hub = {each["name"]: each["bytes"] for each in before["registries"]}["docker.io"]
    assert {each["name"] for each in before["repositories"]} == {str(NGINX), "ghcr.io/o/r"}
    freed = endpoint.post("/api/v1/removals", {"image": "nginx"}, CI).json["freed"]
    after = endpoint.get("/api/v1/usage").json
    assert after["bytes"] == before["bytes"] - freed
    assert {"docker.io": hub - freed}.items() <= {e["name"]: e["bytes"] for e in after["registries"]}.items()


def test_the_history_is_read_with_its_filters(tmp_path: Path) -> None:
    history = FakeHistory()
    endpoint = Endpoint(tmp_path, history)
    (pull,) = endpoint.get("/api/v1/history?image=docker.io/*&client=10.0.0.0/8&limit=5&after=9").json[
        "pulls"
    ]
    assert (pull["number"], pull["repository"], pull["outcome"]) == (7, "library/nginx", "served")
    ((asked, limit, after),) = history.asked
    assert (asked.image, asked.client, limit, after) == ("docker.io/*", "10.0.0.0/8", 5, 9)


def test_a_history_that_is_off_or_broken_is_said_to_be(tmp_path: Path, endpoint: Endpoint) -> None:
    assert endpoint.get("/api/v1/history").error == (404, "NAME_UNKNOWN")
    broken = Endpoint(tmp_path / "other", FakeHistory("the file is malformed")).get("/api/v1/history")
    assert (broken.status, broken.message) == (503, "the file is malformed")


def test_a_client_that_is_neither_an_address_nor_a_network_is_refused(tmp_path: Path) -> None:
    history = KeptHistory(tmp_path)
    history.write()
    history.close()
    endpoint = Endpoint(tmp_path, history.reader)
    for client in ("10.0.0.0/33", "office"):
        refused = endpoint.get(f"/api/v1/history?client={client}")
        assert (refused.status, refused.message) == (400, f"{client} is neither an address nor a network")


def test_an_image_is_pinned_and_unpinned(endpoint: Endpoint) -> None:
    made = endpoint.post("/api/v1/pins", {"image": "nginx", "platforms": ["linux/amd64"]}, CI)
    assert (made.status, made.json) == (
        201,
        {"image": IMAGE, "platforms": ["linux/amd64"], "refreshed": None},
    )
    assert endpoint.get("/api/v1/pins").json == {"pins": [made.json]}
    removed = endpoint.ask("DELETE", "/api/v1/pins?image=nginx", CI)
    assert (removed.status, removed.body, list(iter_pins(endpoint.root))) == (204, b"", [])
    assert endpoint.ask("DELETE", "/api/v1/pins?image=nginx", CI).error == (404, "MANIFEST_UNKNOWN")
    assert endpoint.audit() == [
        ("ci", "pin", IMAGE, "done"),
        ("ci", "unpin", IMAGE, "done"),
        ("ci", "unpin", IMAGE, f"{IMAGE} is not pinned"),
    ]


def test_an_image_of_a_registry_that_is_not_mirrored_is_not_pinned(endpoint: Endpoint) -> None:
    """A pin of an earlier time can be removed."""
    refused = endpoint.post("/api/v1/pins", {"image": "nope.example.com/x:1"}, CI)
    assert (refused.status, refused.message) == (
        404,
        "nope.example.com/x:1: this mirror has no registry nope.example.com, so no client could pull it",
    )
    add_pin(endpoint.root, Pin(Repository("nope.example.com/x"), Tag("1")))
    assert endpoint.ask("DELETE", "/api/v1/pins?image=nope.example.com/x:1", CI).status == 204


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"nme": "nginx"}, "image: is missing; nme: there is no such key; the keys are image, platforms"),
        (
            {"image": "nginx", "platform": ["linux/amd64"]},
            "platform: there is no such key; is 'platforms' meant?; the keys are image, platforms",
        ),
        ({"image": "A B"}, "image: expected the name of an image, such as docker.io/library/nginx:1.27"),
        (
            {"image": "nginx", "platforms": ["linux"]},
            "platforms.0: expected a platform, such as linux/amd64",
        ),
        ({"image": 1}, "image: expected a text"),
        ({"image": ""}, "image: expected a text that is not empty"),
        ({"image": "nginx", "platforms": "linux"}, "platforms: expected a list"),
        (["nginx"], "expected a JSON object"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_words(endpoint: Endpoint, body: object, message: str) -> None:
    assert endpoint.post("/api/v1/pins", body, CI).message == message


def test_what_is_wrong_with_a_query_is_said_in_words(endpoint: Endpoint) -> None:
    queries = {
        "images?limit=x": "limit: expected a whole number",
        "images?limit=0": "limit: expected at least 1",
        "images?limit=5000": "limit: expected at most 1000",
        "images?name=" + "n" * 501: "name: expected at most 500 characters",
    }
    for query, message in queries.items():
        assert endpoint.get(f"/api/v1/{query}").message == message
    broken = endpoint.ask("POST", "/api/v1/pins", "Content-Type: application/json", CI, body=b"{")
    assert broken.message.startswith("the body is no JSON: EOF while parsing")


def test_the_longest_image_is_accepted(endpoint: Endpoint) -> None:
    """A short name is completed, and then still is a name of a repository."""
    assert endpoint.post("/api/v1/pins", {"image": "n" * 237}, CI).status == 201
    assert endpoint.post("/api/v1/pins", {"image": "n" * 238}, CI).status == 400


def test_a_removal_deletes_what_it_announced(endpoint: Endpoint) -> None:
    """A dry run deletes nothing, and is not in the audit log."""
    endpoint.post("/api/v1/pins", {"image": "nginx"}, CI)
    planned = endpoint.post("/api/v1/removals", {"image": "nginx", "dry_run": True}, CI).json
    freed = len(INDEX)
    assert (planned["freed"], planned["pinned"], endpoint.audit()[1:]) == (freed, [IMAGE], [])
    assert planned["deleted"] == [
        {
            "repository": str(NGINX),
            "tags": ["latest"],
            "contents": [str(Digest.of(INDEX)), str(Digest.of(ARM))],
        }
    ]
    removed = endpoint.post("/api/v1/removals", {"image": "nginx"}, CI).json
    assert removed == planned
    assert [each["tag"] for each in endpoint.get("/api/v1/images").json["images"]] == ["1.27", None]
    assert endpoint.post("/api/v1/removals", {"image": "nginx"}, CI).error == (404, "MANIFEST_UNKNOWN")
    digest = {"image": str(Digest.of(AMD))}
    foreseen = endpoint.post("/api/v1/removals", {**digest, "dry_run": True}, CI).json["freed"]
    everywhere = endpoint.post("/api/v1/removals", digest, CI)
    assert everywhere.json["freed"] == foreseen > len(AMD)
    assert everywhere.json["deleted"][0]["tags"] == ["1.27"]
    assert [action for _, action, _, _ in endpoint.audit()] == ["pin", "remove", "remove", "remove"]


def test_a_digest_is_recalled_and_the_recall_lifted(endpoint: Endpoint) -> None:
    """The bytes are gone, and a layer that several images have needs a word more."""
    digest = str(Digest.of(INDEX))
    made = endpoint.post("/api/v1/recalls", {"digest": digest, "reason": "CVE-1"}, CI)
    fields = ("digest", "reason", "images", "freed", "in_bucket")
    assert [made.json[key] for key in fields] == [digest, "CVE-1", 1, len(INDEX), False]
    (listed,) = endpoint.get("/api/v1/recalls").json["recalls"]
    assert (made.status, listed) == (201, {key: made.json[key] for key in ("digest", "reason", "since")})

    lift = f"/api/v1/recalls?digest={digest}"
    assert endpoint.ask("DELETE", lift, CI).status == 204
    assert endpoint.get("/api/v1/recalls").json == {"recalls": []}
    assert endpoint.ask("DELETE", lift, CI).error == (404, "MANIFEST_UNKNOWN")
    assert [action for _, action, _, _ in endpoint.audit()] == ["recall", "lift", "lift"]

    shared = {"digest": str(Digest.of(BASE)), "reason": "CVE-2"}
    refused = endpoint.post("/api/v1/recalls", shared, CI)
    assert (refused.status, "images" in refused.message) == (400, True)
    assert endpoint.post("/api/v1/recalls", {**shared, "shared": True}, CI).status == 201
    empty = {"digest": str(Digest.of(b"")), "reason": "CVE-3"}
    assert endpoint.post("/api/v1/recalls", empty, CI).status == 400
    blank = endpoint.post("/api/v1/recalls", {"digest": digest, "reason": " \n"}, CI)
    assert (blank.status, blank.message) == (400, "reason: expected a reason: refused clients see it")


@pytest.mark.parametrize(
    ("path", "fields", "refresh"),
    [
        ("warm-ups", {"image": "nginx", "referrers": True}, False),
        ("refreshes", {"image": "nginx", "platforms": ["linux/arm64"]}, True),
        ("refresh", {"image": "nginx"}, True),
    ],
)
def test_a_warm_up_waits_for_the_mirror(
    endpoint: Endpoint, path: str, fields: dict[str, object], refresh: bool
) -> None:
    answer = endpoint.post(f"/api/v1/{path}", fields, CI)
    assert (answer.status, answer.json["image"], answer.json["state"]) == (202, IMAGE, "waiting")
    (waiting,) = iter_warm_ups(endpoint.root)
    assert (waiting.repository, waiting.reference) == (NGINX, Tag("latest"))
    assert (waiting.refresh, waiting.referrers) == (refresh, "referrers" in fields)
    assert waiting.tag_only == (path == "refresh")
    assert endpoint.get(f"/api/v1/warm-ups/{waiting.id}").json == answer.json
    assert endpoint.get("/api/v1/warm-ups").json == {"warm_ups": [answer.json]}
    assert endpoint.get("/api/v1/warm-ups/..%2Fpins").error == (404, "MANIFEST_UNKNOWN")
    assert endpoint.audit() == [("ci", "refresh" if refresh else "warm", IMAGE, "done")]


WRITES = [
    *(("POST", f"/api/v1/{name}") for name in ("pins", "removals", "warm-ups", "refreshes", "refresh")),
    ("DELETE", "/api/v1/pins?image=nginx"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_write_needs_a_token_with_that_scope(
    endpoint: Endpoint, method: str, path: str, tmp_path: Path
) -> None:
    """A page of another site has none of its own, and may not use the browser's.

    Each refused change is in the audit log, without the secret; a challenge is not.
    """

    def write(*headers: str, to: Endpoint = endpoint) -> tuple[int, str]:
        body = b'{"image": "nginx"}' if method == "POST" else b""
        return to.ask(method, path, "Content-Type: application/json", *headers, body=body).error

    assert write() == (401, "UNAUTHORIZED")
    assert write(login("ci", "guess")) == (401, "UNAUTHORIZED")
    assert write(login("nobody")) == (401, "UNAUTHORIZED")
    assert write("Authorization: Bearer ci.guess") == (401, "UNAUTHORIZED")
    assert write(login("reader")) == (403, "DENIED")
    assert write(CI, "Sec-Fetch-Site: cross-site") == (403, "DENIED")
    assert write(CI, to=Endpoint(tmp_path / "other", has_tokens=False)) == (403, "DENIED")
    request = f"{method} {path.partition('?')[0]}"
    assert endpoint.audit() == [
        *[(None, request, None, "unknown token")] * 3,
        ("reader", request, None, "the token reader does not have the scope 'write'"),
        (None, request, None, "a page of another site may not change anything here"),
    ]
    assert not any(word in line for line in endpoint.audited for word in ("guess", "secret"))
    assert (list(iter_pins(endpoint.root)), list(iter_warm_ups(endpoint.root))) == ([], [])


def test_a_refusal_says_what_the_client_may_do(endpoint: Endpoint) -> None:
    method = endpoint.ask("PUT", "/api/v1/pins", CI)
    scope = endpoint.post("/api/v1/pins", {"image": "nginx"}, login("reader"))
    assert (method.status, method["Allow"]) == (405, "GET, POST, DELETE, HEAD")
    assert [each.json["errors"][0]["message"] for each in (method, scope)] == [
        "this path does not support the method; it supports GET, POST, DELETE, HEAD",
        "the token reader does not have the scope 'write'",
    ]


def test_tokens_are_sent_as_basic_or_bearer(endpoint: Endpoint) -> None:
    assert (
        endpoint.post("/api/v1/pins", {"image": "nginx"}, "Authorization: Bearer ci.ci-secret").status == 201
    )
    assert endpoint.get("/api/v1/pins", login("reader")).status == 200
    refused = endpoint.get("/api/v1/pins", login("reader", "guess"))
    assert refused["WWW-Authenticate"] == 'Basic realm="dockmirror operations"'


def test_guessing_tokens_is_limited(endpoint: Endpoint) -> None:
    codes = [endpoint.get("/api/v1/pins", login("ci", f"guess{number}")).status for number in range(11)]
    assert codes == [401] * 10 + [429]


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    [
        ("pins", "application/json", b"{", 400),
        ("pins", "application/json", b'{"image": "A B"}', 400),
        ("pins", "application/json", b'{"image": "nginx", "other": 1}', 400),
        ("pins", "application/json", b'{"image": "nginx", "platforms": ["linux"]}', 400),
        ("pins", "text/plain", b'{"image": "nginx"}', 415),
        ("pins", "application/json", b" " * 70_000, 413),
        ("nothing", "application/json", b"{}", 404),
        ("images", "application/json", b"{}", 405),
    ],
)
def test_what_is_malformed_is_refused(
    endpoint: Endpoint, path: str, kind: str, body: bytes, status: int
) -> None:
    answer = endpoint.ask("POST", f"/api/v1/{path}", f"Content-Type: {kind}", CI, body=body)
    assert answer.error[0] == status


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "other=1", "name=a&name=b"])
def test_a_malformed_query_is_refused(endpoint: Endpoint, query: str) -> None:
    assert endpoint.get(f"/api/v1/images?{query}").status == 400


def test_only_the_mirrors_own_names_are_served(endpoint: Endpoint) -> None:
    assert endpoint.ask("GET", "/api/v1/images", host="rebound.example").error == (403, "DENIED")
    assert endpoint.get("/api/v2/images").status == 404
    assert endpoint.get("/nothing").message == (
        "not found; try /status, /metrics, /healthz, /readyz, /api/v1/openapi.json, /images/ or /history"
    )
    assert endpoint.get("/api/v1/openapi.json").json["openapi"] == "3.1.0"
    refused = endpoint.post("/api/v1/openapi.json", {}, CI)
    assert (refused.status, refused["Allow"]) == (405, "GET, HEAD")


def test_an_unwritable_cache_is_a_503(endpoint: Endpoint) -> None:
    (endpoint.root / "dockmirror" / "pins").write_text("in the way")
    assert endpoint.post("/api/v1/pins", {"image": "nginx"}, CI).status == 503
    assert json.loads(endpoint.audited[0])["result"] == "Not a directory"


def test_errors_are_json_for_clients_that_prefer_pages(endpoint: Endpoint) -> None:
    """As Java's own does unless it is told otherwise."""
    answer = endpoint.get("/api/v1/nothing", "Accept: text/html, image/gif, *; q=.2, */*; q=.2")
    assert (answer.status, answer["Content-Type"]) == (404, "application/json")
