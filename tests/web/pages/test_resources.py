"""The pages, as browsers, programs and terminals get them."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import re
import tomllib
from base64 import b64encode
from hashlib import sha256
from xml.etree import ElementTree

import bcrypt
import pytest

from dockmirror.client_config.clients import CLIENTS
from tests.fake_registry import basic
from tests.house import Answer, House
from tests.internet import PASSWORD, USER, Internet

OWN, DOCKER = "mirror.example:8080", "docker.mirror.example:8080"
HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture
def house() -> House:
    """The mirror in front of the well-known registries."""
    return House(Internet())


def page(answer: Answer) -> str:
    """The document; it must be one that a browser is given."""
    assert (answer.status, answer["Content-Type"]) == (200, "text/html; charset=utf-8")
    return answer.body.decode()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ((), "text/plain; charset=utf-8"),
        (("Accept: */*",), "text/plain; charset=utf-8"),
        ((HTML,), "text/html; charset=utf-8"),
        (("Accept: application/json",), "application/json"),
        (("Accept: image/png",), "text/plain; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("host", [OWN, DOCKER])
def test_kinds(house: House, host: str, accept: tuple[str, ...], kind: str) -> None:
    """Each gets what it asks for, and a terminal, which does not say, gets text."""
    answer = house.get(host, "/", *accept)
    assert (answer.status, answer["Content-Type"]) == (200, kind)
    assert "Accept" in str(answer["Vary"])
    assert house.ask("HEAD", host, "/", *accept)["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("path", ["/", "/client/docker"])
def test_headers(house: House, path: str) -> None:
    """Nobody keeps a page, guesses at its type, or is told where a reader came from."""
    answer = house.get(OWN, path, HTML)
    assert answer["Cache-Control"] == "no-store"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "no-referrer"


def test_policy(house: House) -> None:
    """A browser runs the script and uses the style that came with the page, and fetches nothing."""
    answer = house.get(OWN, "/", HTML)
    policy, body = str(answer["Content-Security-Policy"]), page(answer)
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", body, re.DOTALL)
        assert f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)="(?!#|\?lang=|data:)""", body)
    assert not re.search(r"\sstyle=|\son[a-z]+=", body)


def test_is_well_formed(house: House) -> None:
    """Every tag is closed, and each link within the page leads somewhere."""
    body = page(house.get(OWN, "/", HTML)).removeprefix("<!DOCTYPE html>")
    root = ElementTree.fromstring(body)  # noqa: S314
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    links = {str(element.get("href")) for element in root.iter("a")}
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= ids
    assert set(CLIENTS) <= ids


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "mirror.example", OWN])
def test_the_host_as_it_was_reached(house: House, host: str, secure: bool) -> None:
    """Client configurations use the scheme, host and port by which the page was requested."""
    told = house.connect(secure=secure).ask("GET", host, "/client/docker").answer
    scheme = "https" if secure else "http"
    assert json.loads(told.body)["registry-mirrors"] == [f"{scheme}://{host}"]
    body = page(house.connect(secure=secure).ask("GET", host, "/", HTML).answer)
    assert f"<h1>{host}</h1>" in body
    assert f"{host}/docker.io/library/busybox" in body


def test_behind_a_proxy() -> None:
    """It is the address that the proxy was asked by."""
    house = House(Internet(), trust_proxy=["192.168.1.1"])
    forwarded = ("X-Forwarded-For: 10.0.0.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: mirror.example")
    assert json.loads(house.get("backend", "/client/docker", *forwarded).body) == {
        "registry-mirrors": ["https://mirror.example"]
    }


def test_a_virtual_host(house: House) -> None:
    """The page names its registry, and configures clients for the mirror's own host, which needs no login."""
    body = page(house.get(DOCKER, "/", HTML))
    assert f"<h1>{DOCKER}</h1>" in body
    assert f"docker pull {DOCKER}/IMAGE" in body
    told = json.loads(house.get(DOCKER, "/client/docker").body)
    assert told["registry-mirrors"] == [f"http://{OWN}"]


def test_hosts_below_localhost() -> None:
    """Hosts below localhost are listed only for clients that used one, since most cannot resolve them."""
    house = House(Internet(), domain="localhost")
    assert b"docker.localhost" not in house.get("127.0.0.1:8080", "/", HTML).body
    assert b"ghcr.localhost:8080" in house.get("docker.localhost:8080", "/", HTML).body


@pytest.mark.parametrize("host", ["host.docker.internal:8080", "host.containers.internal"])
def test_a_machine_as_its_containers_call_it(house: House, host: str) -> None:
    """The name by which containers call their machine is the mirror's own host."""
    assert house.get(host, "/v2/").status == 200
    assert host.encode() in house.get(host, "/client/podman").body


@pytest.mark.parametrize("client", CLIENTS)
def test_clients(house: House, client: str) -> None:
    """Each has its lines as text, and they stand in the page."""
    answer = house.get(OWN, f"/client/{client}")
    assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    root = ElementTree.fromstring(  # noqa: S314
        page(house.get(OWN, "/", HTML)).removeprefix("<!DOCTYPE html>")
    )
    shown = ["".join(element.itertext()) for element in root.iter("pre")]
    assert any(answer.body.decode().endswith(each + "\n") for each in shown)


def test_one_of_several(house: House) -> None:
    """One of several snippets is requested by its name, and can be written to its file unchanged."""
    told = house.get(OWN, "/client/containerd/ghcr.io").body.decode()
    assert tomllib.loads(told)["server"] == "https://ghcr.io"


@pytest.mark.parametrize(
    "path",
    ["/client", "/client/", "/client/nothing", "/client/docker/nothing", "/client/k3s/a/b", "/client/%3Cb"],
)
def test_no_such_client(house: House, path: str) -> None:
    """404, and those that there are."""
    answer = house.get(OWN, path, HTML)
    assert answer.error == (404, "UNSUPPORTED")
    assert "containerd" in answer.message


@pytest.mark.parametrize("host", [OWN, DOCKER])
def test_archives(house: House, host: str) -> None:
    """Archives are offered if the mirror exports them, at its own host."""
    line = f'curl -C - -o busybox.tar "http://{OWN}/export?image=docker.io/library/busybox:latest'
    giving = House(Internet(), export=True)
    assert line in giving.get(host, "/").body.decode()
    assert giving.get(host, "/", "Accept: application/json").json["export"] == f"http://{OWN}/export"
    root = ElementTree.fromstring(page(giving.get(host, "/", HTML)).removeprefix("<!DOCTYPE html>"))  # noqa: S314
    assert any(line in "".join(element.itertext()) for element in root.iter("pre"))
    assert "archives" in {element.get("id") for element in root.iter("section")}
    assert b"/export" not in house.get(host, "/").body + house.get(host, "/", HTML).body
    assert house.get(host, "/", "Accept: application/json").json["export"] is None


@pytest.mark.parametrize("host", [OWN, DOCKER])
@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/x/manifests/1", "/v2/auth", "/docker.io/v2/"])
def test_never_in_the_place_of_a_registry(house: House, host: str, path: str) -> None:
    """A client takes for content whatever it is given there."""
    assert "html" not in str(house.get(host, path, HTML)["Content-Type"])


def test_everything_is_escaped(house: House) -> None:
    """Paths that a client requested appear as text, whatever they contain."""
    house.get(OWN, "/v2/<script>alert('x')</script>")
    house.get(OWN, '/v2/"onload="x')
    body = page(house.get(OWN, "/", HTML))
    assert "/v2/&lt;script&gt;" in body
    assert "<script>alert" not in body
    assert "/v2/&quot;onload=&quot;x" in body


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("/", (), "en"),
        ("/", ("Accept-Language: zh-CN,zh;q=0.9,en;q=0.8",), "zh"),
        ("/", ("Accept-Language: en;q=0.3, zh-Hant;q=0.5",), "zh"),
        ("/", ("Accept-Language: xx, *",), "en"),
        ("/?lang=zh", ("Accept-Language: en",), "zh"),
        ("/?lang=xx", ("Accept-Language: zh",), "zh"),
    ],
)
def test_languages(house: House, path: str, headers: tuple[str, ...], code: str) -> None:
    """The page uses the browser's language, or the one that the reader chose."""
    assert f'<html lang="{code}">' in page(house.get(OWN, path, HTML, *headers))


def test_too_much_of_a_query(house: House) -> None:
    """A query with too many parameters is rejected."""
    assert house.get(OWN, "/?" + "a&" * 100).status == 400


def test_for_members_only(tmp_path: object) -> None:
    """With user accounts, the pages need a login, and each user sees only their own requests."""
    file = f"{tmp_path}/htpasswd"
    with open(file, "wb") as users:
        for name in (USER, "other"):
            users.write(f"{name}:".encode() + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    house = House(Internet(), access={"htpasswd": file, "keys": f"{tmp_path}/keys"})
    refused = house.get(OWN, "/", HTML)
    assert refused.status == 401
    assert b"docker.io" not in refused.body
    login = f"Authorization: {basic(USER, PASSWORD)}"
    house.get(OWN, "/v2/", login)
    assert b"GET /v2/" in house.get(OWN, "/", login).body
    assert b"GET /v2/" not in house.get(OWN, "/", f"Authorization: {basic('other', PASSWORD)}").body
