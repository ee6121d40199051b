"""The pages, as browsers, programs and terminals get them."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import re
import tomllib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bcrypt
import pytest

from dockmirror.client_config.clients import CLIENTS
from dockmirror.client_config.snippet import MirrorAddress, MirroredRegistry
from dockmirror.config.known_registries import KNOWN
from dockmirror.web.pages.page import LANGUAGES
from tests.fake_registry import basic
from tests.house import Answer, House
from tests.internet import PASSWORD, USER, Internet

OWN, DOCKER, UNKNOWN = "mirror.example:8080", "docker.mirror.example:8080", "typo.example:8080"
HTML = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
JSON = "Accept: application/json"
ENGLISH = LANGUAGES["en"]

on_both_hosts = pytest.mark.parametrize("host", [OWN, DOCKER])


def page(answer: Answer, status: int = 200) -> str:
    """Return the document that a browser gets."""
    assert (answer.status, answer["Content-Type"]) == (status, "text/html; charset=utf-8")
    return answer.body.decode()


def parse(document: str) -> ElementTree.Element:
    """Parse a document, which is well-formed."""
    return ElementTree.fromstring(document.removeprefix("<!DOCTYPE html>"))  # noqa: S314


def texts(root: ElementTree.Element, tag: str) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(tag)]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ((), "text/plain; charset=utf-8"),
        (("Accept: */*",), "text/plain; charset=utf-8"),
        ((HTML,), "text/html; charset=utf-8"),
        ((JSON,), "application/json"),
        (("Accept: image/png",), "text/plain; charset=utf-8"),
    ],
)
@on_both_hosts
def test_the_media_type_is_negotiated(house: House, host: str, accept: tuple[str, ...], kind: str) -> None:
    answer = house.get(host, "/", *accept)
    assert (answer.status, answer["Content-Type"]) == (200, kind)
    assert "Accept" in str(answer["Vary"])
    assert house.ask("HEAD", host, "/", *accept)["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("path", ["/", "/client/docker"])
def test_pages_are_not_cached_or_guessed_at_and_send_no_referrer(house: House, path: str) -> None:
    answer = house.get(OWN, path, HTML)
    fields = [answer[name] for name in ("Cache-Control", "X-Content-Type-Options", "Referrer-Policy")]
    assert fields == ["no-store", "nosniff", "no-referrer"]


def test_the_policy_allows_only_the_embedded_style_and_script(house: House) -> None:
    answer = house.get(OWN, "/", HTML)
    policy, body = str(answer["Content-Security-Policy"]), page(answer)
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", body, re.DOTALL)
        assert f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)="(?!#|\?lang=|\?test|data:)""", body)
    assert not re.search(r"\sstyle=|\son[a-z]+=", body)


def test_each_link_within_the_page_leads_to_a_section(house: House) -> None:
    root = parse(page(house.get(OWN, "/", HTML)))
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    links = {str(element.get("href")).partition("#")[2] for element in root.iter("a")}
    assert links - {""} <= ids
    assert set(CLIENTS) <= ids
    buttons = {str(element.get("for")) for element in root.iter("label")}
    assert buttons == {element.get("id") for element in root.iter("input")}


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "mirror.example", OWN])
def test_pages_use_the_scheme_and_host_of_the_request(house: House, host: str, secure: bool) -> None:
    config, home = (
        house.connect(secure=secure).ask("GET", host, path, HTML).answer for path in ("/client/docker", "/")
    )
    assert json.loads(config.body)["registry-mirrors"] == [f"http{'s' * secure}://{host}"]
    body = page(home)
    assert f"<h1>{host}</h1>" in body
    assert f"{host}/docker.io/library/busybox" in body


def test_a_virtual_host_configures_clients_for_the_own_host(house: House) -> None:
    """It needs no login."""
    body = page(house.get(DOCKER, "/", HTML))
    assert f"<h1>{DOCKER}</h1>" in body
    assert f"docker pull {DOCKER}/IMAGE" in body
    assert json.loads(house.get(DOCKER, "/client/docker").body)["registry-mirrors"] == [f"http://{OWN}"]


def test_hosts_below_localhost_are_listed_for_clients_that_used_one(internet: Internet) -> None:
    """Most clients cannot resolve them."""
    house = House(internet, domain="localhost")
    assert b"docker.localhost" not in house.get("127.0.0.1:8080", "/", HTML).body
    assert b"ghcr.localhost:8080" in house.get("docker.localhost:8080", "/", HTML).body
    unknown = page(house.get(UNKNOWN, "/", HTML), 404)
    assert "http://localhost:8080/" in unknown
    assert "docker.localhost" not in unknown


@pytest.mark.parametrize("host", ["host.docker.internal:8080", "host.containers.internal"])
def test_containers_reach_the_own_host_by_the_name_of_their_machine(house: House, host: str) -> None:
    assert house.get(host, "/v2/").status == 200
    assert host.encode() in house.get(host, "/client/podman").body


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_has_its_configuration_as_text_and_on_the_page(house: House, client: str) -> None:
    answer = house.get(OWN, f"/client/{client}")
    assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    shown = texts(parse(page(house.get(OWN, "/", HTML))), "pre")
    assert any(answer.body.decode().endswith(each + "\n") for each in shown)


def test_a_snippet_is_requested_by_its_name(house: House) -> None:
    snippet = house.get(OWN, "/client/containerd/ghcr.io").body.decode()
    assert tomllib.loads(snippet)["server"] == "https://ghcr.io"


@pytest.mark.parametrize(
    "path",
    ["/client", "/client/", "/client/nothing", "/client/docker/nothing", "/client/k3s/a/b", "/client/%3Cb"],
)
def test_an_unknown_client_gets_404_with_the_known_ones(house: House, path: str) -> None:
    answer = house.get(OWN, path, JSON)
    assert answer.error == (404, "UNSUPPORTED")
    assert "containerd" in answer.message


@on_both_hosts
def test_archives_are_offered_if_export_is_enabled(internet: Internet, house: House, host: str) -> None:
    line = f'curl -C - -o busybox.tar "http://{OWN}/export?image=docker.io/library/busybox:latest'
    enabled = House(internet, export=True)
    assert line in enabled.get(host, "/").body.decode()
    assert enabled.get(host, "/", JSON).json["export"] == f"http://{OWN}/export"
    root = parse(page(enabled.get(host, "/", HTML)))
    assert any(line in each for each in texts(root, "pre"))
    assert "archives" in {element.get("id") for element in root.iter("details")}
    assert b"/export" not in house.get(host, "/").body + house.get(host, "/", HTML).body
    assert house.get(host, "/", JSON).json["export"] is None


@on_both_hosts
def test_the_images_held_are_linked_if_clients_may_see_them(
    internet: Internet, house: House, host: str
) -> None:
    enabled = House(internet, images=True)
    assert f"http://{OWN}/images/" in enabled.get(host, "/").body.decode()
    assert enabled.get(host, "/", JSON).json["images"] == f"http://{OWN}/images/"
    links = [each.get("href") for each in parse(page(enabled.get(host, "/", HTML))).iter("a")]
    assert f"http://{OWN}/images/" in links
    assert b"/images/" not in house.get(host, "/").body + house.get(host, "/", HTML).body
    assert house.get(host, "/", JSON).json["images"] is None


@pytest.mark.parametrize("host", [OWN, DOCKER, UNKNOWN])
@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/x/manifests/1", "/v2/auth", "/docker.io/v2/"])
def test_registry_paths_never_get_a_page(house: House, host: str, path: str) -> None:
    """A client takes for content anything that it is given there."""
    assert "html" not in str(house.get(host, path, HTML)["Content-Type"])


def test_what_a_client_requested_is_escaped(house: House) -> None:
    body = page(house.get(OWN, "/?client=<script>alert(1)</script>&test=<b>", HTML))
    assert "<script>alert" not in body
    assert b"<script>alert" not in house.get("<script>alert(1)</script>", "/", HTML).body


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
def test_the_language_is_negotiated(house: House, path: str, headers: tuple[str, ...], code: str) -> None:
    for host, status in ((OWN, 200), (UNKNOWN, 404)):
        assert f'<html lang="{code}">' in page(house.get(host, path, HTML, *headers), status)


def test_too_many_parameters_are_refused(house: House) -> None:
    assert house.get(OWN, "/?" + "a&" * 100).status == 400
    assert house.get(UNKNOWN, "/?" + "a&" * 100, HTML)["Content-Type"] == "application/json"


def test_with_users_the_pages_need_a_login(internet: Internet, tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{USER}:{hashed}\n")
    house = House(internet, access={"htpasswd": f"{tmp_path}/htpasswd", "keys": f"{tmp_path}/keys"})
    for path in ("/", "/pulls", "/pulls/events", "/setup/docker"):
        refused = house.get(OWN, path, HTML)
        assert refused.status == 401
        assert b"docker.io" not in refused.body
    assert house.get(OWN, "/", f"Authorization: {basic(USER, PASSWORD)}").status == 200


@pytest.mark.parametrize(
    ("query", "checked"),
    [
        ("", {"client-docker", "system-docker-docker", "system-podman-podman"}),
        ("?client=k3s", {"client-k3s", "system-docker-docker", "system-podman-podman"}),
        ("?client=machine", {"client-podman", "system-docker-docker", "system-podman-machine"}),
        ("?client=nothing", {"client-docker", "system-docker-docker", "system-podman-podman"}),
    ],
)
def test_one_tab_is_open_without_a_script(house: House, query: str, checked: set[str]) -> None:
    root = parse(page(house.get(OWN, f"/{query}", HTML)))
    assert {str(each.get("id")) for each in root.iter("input") if each.get("checked")} == checked


@pytest.mark.parametrize("code", LANGUAGES)
def test_each_client_says_how_to_take_it_back(house: House, code: str) -> None:
    root = parse(page(house.get(OWN, f"/?lang={code}", HTML)))
    for name in CLIENTS:
        (part,) = (each for each in root.iter("div") if each.get("id") == name)
        assert LANGUAGES[code]("clients.undo") in texts(part, "summary")


def test_the_page_is_small(house: House) -> None:
    assert len(house.get(OWN, "/", HTML).body) < 150_000


def setup(
    house: House, host: str, peer: str = "192.168.1.1", secure: bool = False, name: str = "docker"
) -> Answer:
    """Return the answer to a request for a setup script."""
    return house.connect(peer, secure).ask("GET", host, f"/setup/{name}").answer


@pytest.mark.parametrize(
    ("peer", "secure", "host", "settings", "url"),
    [
        ("192.168.1.1", True, "m.example", {"listen": ["https:443"]}, "https://m.example"),
        ("192.168.1.1", True, "m.example:9", {"listen": ["80", "https:8443"]}, "https://m.example:8443"),
        ("192.168.1.1", True, "m.lan", {"listen": ["https:443"], "names": ["m.lan"]}, "https://m.lan"),
        ("192.168.1.1", True, "10.0.0.1:8443", {}, "https://m.example"),
        ("192.168.1.1", True, "docker.m.example", {}, "https://m.example"),
        ("127.0.0.1", False, "m.example:9", {"listen": ["8081"]}, "http://127.0.0.1:8081"),
        ("127.0.0.1", False, "localhost", {"listen": ["10.0.0.1:80", "[::1]:81"]}, "http://[::1]:81"),
    ],
)
def test_setup_scripts_name_the_mirror_by_its_settings(
    internet: Internet, peer: str, secure: bool, host: str, settings: dict[str, Any], url: str
) -> None:
    answer = setup(House(internet, **{"domain": "m.example", **settings}), host, peer, secure)
    assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert f"\nmirror={url}\n" in answer.body.decode().replace("'", "")
    assert b"10.0.0.1:8443" not in answer.body


def test_setup_scripts_need_tls_or_the_same_machine(house: House) -> None:
    refused = setup(house, OWN)
    assert refused.error == (403, "DENIED")
    assert "https" in refused.message
    assert b"/setup/" not in house.get(OWN, "/", HTML).body
    by_tls = house.connect(secure=True).ask("GET", "mirror.example", "/", HTML).answer
    assert b"curl -fsSLo setup.sh https://mirror.example/setup/docker; sh setup.sh" in by_tls.body


@pytest.mark.parametrize("name", ["", "helm", "docker/x", "../docker", "nothing"])
def test_an_unknown_setup_script_gets_404_with_the_known_ones(house: House, name: str) -> None:
    answer = setup(house, OWN, secure=True, name=name)
    assert answer.error == (404, "UNSUPPORTED")
    assert "containerd" in answer.message


@pytest.mark.parametrize("path", ["/", "/client/docker", "/what/ever"])
def test_a_browser_at_an_unknown_host_gets_links_to_the_known_ones(house: House, path: str) -> None:
    answer = house.get(UNKNOWN, path, HTML)
    assert str(answer["Content-Security-Policy"]).startswith("default-src 'none';")
    root = parse(page(answer, 404))
    first, *others, _ = [str(each.get("href")) for each in root.iter("a")]
    assert first == "http://mirror.example:8080/"
    names = {each.name for each in KNOWN if each.name != "docker-staging"}
    assert set(others) == {f"http://{name}.mirror.example:8080/" for name in names}
    assert texts(root, "h1") == [UNKNOWN]
    assert 'names = ["typo.example"]' in "".join(root.itertext())


@pytest.mark.parametrize("accept", [(), ("Accept: */*",), (JSON,)])
def test_a_program_at_an_unknown_host_gets_the_routes(house: House, accept: tuple[str, ...]) -> None:
    answer = house.get(UNKNOWN, "/", *accept)
    assert answer.error == (404, "UNSUPPORTED")
    assert answer.message == (
        "this mirror does not serve the host typo.example:8080; use the mirror's IP address,"
        " mirror.example:8080 or another of 'hosts', or ask the operator to add typo.example to the setting"
        " 'names', or to set 'domain'"
    )
    assert answer.json["hosts"][:2] == ["mirror.example:8080", "docker.mirror.example:8080"]
    assert b"https://" not in answer.body
    assert "Accept" in str(answer["Vary"])
    nameless = house.get("", "/").message
    assert "a host without a name" in nameless
    assert "the operator" not in nameless


def test_english_is_the_first_language() -> None:
    assert next(iter(LANGUAGES)) == "en"
    assert "zh" in LANGUAGES


@pytest.mark.parametrize("code", LANGUAGES)
def test_all_languages_have_the_same_phrases(code: str) -> None:
    """They have the same values and the same code in them."""
    words = LANGUAGES[code].words
    assert list(words) == list(ENGLISH.words)
    for key, phrase in words.items():
        for pattern in (r"\{\w+\}", "`[^`]*`"):
            assert set(re.findall(pattern, phrase)) == set(re.findall(pattern, ENGLISH.words[key])), key


def test_every_snippet_has_a_phrase() -> None:
    registry = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io")
    for client in CLIENTS.values():
        _, *others = client.snippets(MirrorAddress("http", "m", (registry,)))
        keys = (client.name, f"{client.name}.undo", *(f"{client.name}.{each.name}" for each in others))
        for key in keys:
            assert key in ENGLISH.words
