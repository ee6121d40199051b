"""The mirror's own host: every registry, for everybody, and nobody's credentials."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.config.known_registries import KNOWN
from tests.fake_registry import MANIFEST, Passwords, Registry, basic, digest, error
from tests.fakes import Reply
from tests.house import House
from tests.internet import BUSYBOX, HUB, LAYER, PASSWORD, PRIVATE, USER, Internet

OWN = "mirror.example"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"
BUSYBOX_PATHS = [
    "/v2/busybox/manifests/latest",
    "/v2/library/busybox/manifests/latest",
    "/v2/docker.io/busybox/manifests/latest",
    "/v2/docker.io/library/busybox/manifests/latest",
    "/v2/index.docker.io/library/busybox/manifests/latest",
    "/v2/registry-1.docker.io/library/busybox/manifests/latest",
    "/docker.io/v2/library/busybox/manifests/latest",
    "/docker.io/v2/busybox/manifests/latest",
    "/index.docker.io/v2/library/busybox/manifests/latest",
    "/v2/library/busybox/manifests/latest?ns=docker.io",
    "/v2/busybox/manifests/latest?ns=index.docker.io",
    "/v2/library/busybox/manifests/latest?ns=registry-1.docker.io",
    "/v2/docker.io/library/busybox/manifests/latest?ns=docker.io",
    "/v2/docker.io/library/busybox/manifests/latest?ns=index.docker.io",
    "/docker.io/v2/library/busybox/manifests/latest?ns=docker.io",
    "/docker.io/v2/library/busybox/manifests/latest?ns=registry-1.docker.io",
    "/v2/library/busybox/manifests/latest?ns=Docker.IO",
]


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    return House(internet)


class TestNames:
    @pytest.mark.parametrize("path", BUSYBOX_PATHS)
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_docker_hub_has_many_names(
        self, house: House, internet: Internet, path: str, method: str
    ) -> None:
        """By path in both spellings, by ``ns``, by alias, and by default."""
        answer = house.ask(method, OWN, path)
        assert answer.status == 200
        assert answer["Docker-Content-Digest"] == internet.busybox
        assert answer["Content-Type"] == MANIFEST
        assert answer.body == (BUSYBOX if method == "GET" else b"")
        asked_for_it = [seen for seen in internet.asked(HUB) if "manifests" in seen.path]
        assert {seen.url for seen in asked_for_it} == {f"https://{HUB}/v2/library/busybox/manifests/latest"}

    @pytest.mark.parametrize("registry", dict.fromkeys(known.registry for known in KNOWN))
    @pytest.mark.parametrize(
        "path",
        [
            "/v2/{}/team/image/manifests/1",
            "/{}/v2/team/image/manifests/1",
            "/v2/team/image/manifests/1?ns={}",
        ],
    )
    def test_every_registry_is_served(self, house: House, registry: str, path: str) -> None:
        """By its canonical name, with tokens that the mirror obtains itself."""
        answer = house.get(OWN, path.format(registry))
        assert (answer.status, answer.body) == (200, b'{"schemaVersion":2}')
        assert answer["OCI-Namespace"] == (registry if "ns=" in path else None)

    @pytest.mark.parametrize(
        "path",
        [
            "/ghcr.io/v2/team/image/manifests/1?ns=quay.io",
            "/v2/team/image/manifests/1?ns=unknown.example",
            "/v2/?ns=unknown.example",
            "/v2/unknown.example/team/image/manifests/1",
            "/v2/team/image/manifests/1?ns=",
        ],
    )
    def test_contradictory_and_unknown_registries_are_refused(
        self, house: House, internet: Internet, path: str
    ) -> None:
        """With 404, so that containerd moves on; no upstream is asked."""
        assert house.get(OWN, path).error == (404, "NAME_UNKNOWN")
        assert internet.seen == []

    def test_a_registrys_path_has_only_v2(self, house: House) -> None:
        assert house.get(OWN, "/ghcr.io/v2/").json == {}
        assert house.get(OWN, "/ghcr.io/v2").json == {}
        assert house.get(OWN, "/ghcr.io/v1/").error == (404, "UNSUPPORTED")
        assert house.get(OWN, "/ghcr.io/").error == (404, "UNSUPPORTED")
        assert house.get(OWN, "/unknown.example/v2/a/b/manifests/1").error == (404, "UNSUPPORTED")

    @pytest.mark.parametrize(
        "path", ["/v2/127.0.0.1_5000/a/b/manifests/1", "/127.0.0.1:5000/v2/a/b/manifests/1",
                 "/127.0.0.1_5000/v2/a/b/manifests/1", "/v2/a/b/manifests/1?ns=127.0.0.1:5000",
                 "/v2/127.0.0.1_5000/a/b/manifests/1?ns=127.0.0.1:5000"]
    )  # fmt: skip
    def test_a_port_is_joined_by_an_underscore(self, internet: Internet, path: str) -> None:
        """Names may have no colon."""
        internet.servers["127.0.0.1:5000"] = registry = Registry()
        registry.push("a/b", "1")
        house = House(internet, upstream=["lan=http://127.0.0.1:5000"])
        assert house.get(OWN, path).status == 200
        assert house.get("lan.mirror.example", "/v2/a/b/manifests/1?ns=127.0.0.1:5000").status == 200

    def test_names_that_only_look_like_registries_are_docker_hubs(
        self, house: House, internet: Internet
    ) -> None:
        """A component without a dot is a user of Docker Hub."""
        for name in ("v2/auth", "localhost/x", "library/ghcr.io"):
            internet.hub.push(name, "1")
        for name in ("v2/auth", "localhost/x", "ghcr.io"):
            assert house.get(OWN, f"/v2/{name}/manifests/1").status == 200

    @pytest.mark.parametrize("name", ["a.b/c", "docker.io/team/image", "unknown.example/team/image"])
    def test_ns_allows_a_dot_in_a_name(self, house: House, internet: Internet, name: str) -> None:
        """The repository is that registry's, also below the name of another one: a project of Harbor's."""
        internet.registries["ghcr"].push(name, "1")
        for path in (name, f"ghcr.io/{name}"):
            answer = house.get(OWN, f"/v2/{path}/manifests/1?ns=ghcr.io")
            assert (answer.status, answer["OCI-Namespace"]) == (200, "ghcr.io")
        assert internet.asked(HUB) == []


class TestEverything:
    @pytest.mark.parametrize(
        "where", ["/v2/busybox", "/v2/docker.io/library/busybox", "/docker.io/v2/busybox"]
    )
    def test_a_redirected_layer_is_served(self, house: House, internet: Internet, where: str) -> None:
        answer = house.get(OWN, f"{where}/blobs/{internet.layer}")
        assert answer.body == LAYER
        part = house.get(OWN, f"{where}/blobs/{internet.layer}", "Range: bytes=1000-1999")
        assert (part.status, part.body) == (206, LAYER[1000:2000])

    @pytest.mark.parametrize(
        "path", ["/v2/docker.io/busybox/tags/list?n=1", "/docker.io/v2/busybox/tags/list?n=1",
                 "/v2/library/busybox/tags/list?n=1&ns=docker.io"]
    )  # fmt: skip
    def test_the_next_page_is_below_the_same_path(self, house: House, internet: Internet, path: str) -> None:
        told = (("Link", f'<https://{HUB}/v2/library/busybox/tags/list?n=1&last=latest>; rel="next"'),)
        given = Reply(200, b'{"tags":["latest"]}', (*told, ("Content-Type", "application/json")))
        internet.reply(HUB, "/v2/library/busybox/tags/list", given)
        answer = house.get(OWN, path)
        ns = "&ns=docker.io" if "ns=" in path else ""
        assert answer["Link"] == f'<{path.partition("?")[0]}?n=1&last=latest{ns}>; rel="next"'
        assert internet.seen[-1].query == (("n", "1"),)

    def test_there_is_no_catalog_of_all_registries(self, house: House, internet: Internet) -> None:
        """The answer says so in a sentence, and no registry is asked; one of them may have a catalog."""
        answer = house.get("mirror.example", "/v2/_catalog")
        assert answer.error == (404, "UNSUPPORTED")
        assert answer.message.startswith("this mirror lists no repositories")
        assert internet.seen == []

    def test_unknown_content_is_unknown(self, house: House) -> None:
        assert house.get(OWN, "/v2/busybox/manifests/nope").error == (404, "MANIFEST_UNKNOWN")
        assert house.get(OWN, f"/v2/busybox/blobs/{digest(b'')}").error == (404, "BLOB_UNKNOWN")


class TestNobodyIsChallenged:
    """Anonymous access only."""

    @pytest.mark.parametrize("path", ["/v2/", "/v2", "/docker.io/v2/", "/v2/?ns=ghcr.io"])
    def test_a_ping_asks_no_upstream(self, house: House, internet: Internet, path: str) -> None:
        answer = house.get(OWN, path)
        assert (answer.status, answer.json) == (200, {})
        assert answer["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert internet.seen == []

    @pytest.mark.parametrize("path", ["/v2/", "/docker.io/v2/", "/v2/?ns=ghcr.io"])
    def test_a_login_is_refused(self, house: House, internet: Internet, path: str) -> None:
        """The message names the host that accepts it."""
        answer = house.get(OWN, path, LOGIN)
        assert answer.error == (403, "DENIED")
        assert f"log in to {'ghcr' if 'ghcr' in path else 'docker'}.mirror.example" in answer.message
        assert internet.seen == []

    @pytest.mark.parametrize("path", ["/v2/auth?scope=repository:busybox:pull", "/docker.io/v2/auth"])
    @pytest.mark.parametrize("form", [True, False])
    def test_there_are_no_tokens(self, house: House, internet: Internet, path: str, form: bool) -> None:
        """No challenge sends clients for one."""
        answer = house.post(OWN, path, f"password={PASSWORD}") if form else house.get(OWN, path, LOGIN)
        assert answer.error == (404, "UNSUPPORTED")
        assert internet.seen == []

    @pytest.mark.parametrize("where", ["/v2/busybox", "/docker.io/v2/library/busybox"])
    def test_credentials_are_dropped(self, house: House, internet: Internet, where: str) -> None:
        """Clients keep one login per host, and would send it to whichever registry the name picks."""
        for path in ("manifests/latest", "tags/list", f"blobs/{internet.layer}"):
            assert house.get(OWN, f"{where}/{path}", LOGIN).status == 200
        house.get(OWN, f"/v2/{PRIVATE}/manifests/latest", "Authorization: Bearer s3cret", "Cookie: s3cret")
        assert not any(basic(USER, PASSWORD) in str(seen) or "s3cret" in str(seen) for seen in internet.seen)

    @pytest.mark.parametrize(
        ("path", "host"),
        [
            (f"/v2/{PRIVATE}/manifests/latest", "docker.mirror.example"),
            (f"/docker.io/v2/{PRIVATE}/tags/list", "docker.mirror.example"),
            (f"/v2/ghcr.io/{PRIVATE}/manifests/latest", "ghcr.mirror.example"),
            (f"/v2/{PRIVATE}/manifests/latest?ns=registry.gitlab.com", "gitlab.mirror.example"),
            ("/v2/basic.example/a/b/manifests/1", "basic.mirror.example"),
        ],
    )
    def test_private_images_are_denied(self, internet: Internet, path: str, host: str) -> None:
        """Without a challenge; the message names the virtual host that accepts logins."""
        internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
        answer = House(internet, upstream=["basic=https://basic.example"]).get(OWN, path, LOGIN)
        assert answer.error == (403, "DENIED")
        assert host in answer.message
        assert answer["WWW-Authenticate"] is None

    @pytest.mark.parametrize("refusal", [error(401, "UNAUTHORIZED"), error(403, "DENIED")])
    def test_a_refused_token_means_private(self, internet: Internet, house: House, refusal: Reply) -> None:
        internet.reply("ghcr.io", "/token", refusal)
        answer = house.get(OWN, f"/v2/ghcr.io/{PRIVATE}/manifests/latest")
        assert answer.error == (403, "DENIED")
        assert "ghcr.mirror.example" in answer.message
