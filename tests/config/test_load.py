"""Tests of the settings: their sources, their precedence, and the messages for invalid ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.config.field_types import SettingsFile
from dockmirror.config.load import find_origin, load, load_names, pack, read_sources, unpack
from dockmirror.config.notation import Amount
from dockmirror.config.settings import ConfigurationError, Settings, UpstreamSettings

HERE = Path(__file__)
LONG = "x" * 300
KEYS: dict[str, tuple[str, str, Any, tuple[Any, Any, Any, Any]]] = {
    "domain": (
        '"a.example"',
        "b.example",
        "C.example.",
        ("localhost", "a.example", "b.example", "c.example"),
    ),
    "hosts": (
        '"{name}-a.{domain}"',
        "{name}-b.{domain}",
        "{name}.example",
        ("{name}.{domain}", "{name}-a.{domain}", "{name}-b.{domain}", "{name}.example"),
    ),
    "names": (
        '["a", "b.example"]',
        "c D.example",
        ["e"],
        ((), ("a", "b.example"), ("c", "d.example"), ("e",)),
    ),
    "listen": (
        '["tcp:1", "unix:/run/a"]',
        "tcp:2 tcp:3:interface=127.0.0.1",
        ["systemd:domain=INET:index=0"],
        (
            (),
            ("tcp:1", "unix:/run/a"),
            ("tcp:2", "tcp:3:interface=127.0.0.1"),
            ("systemd:domain=INET:index=0",),
        ),
    ),
    "operations": ('""', "none", "tcp:1", ("tcp:9464:interface=127.0.0.1", "", "", "tcp:1")),
    "operations_names": (
        '["a", "b.example"]',
        "c D.example",
        ["e"],
        ((), ("a", "b.example"), ("c", "d.example"), ("e",)),
    ),
    "api_tokens_file": (f'"{__file__}"', __file__, __file__, (None, HERE, HERE, HERE)),
    "networks": (
        '["10.0.0.0/8", "fd00::/8"]',
        "private 192.0.2.1",
        ["public"],
        (("private",), ("10.0.0.0/8", "fd00::/8"), ("private", "192.0.2.1"), ("public",)),
    ),
    "trust_proxy": (
        '["unix"]',
        "127.0.0.1 ::1",
        ["10.0.0.0/8"],
        ((), ("unix",), ("127.0.0.1", "::1"), ("10.0.0.0/8",)),
    ),
    "accel": ('"nginx"', "off", "nginx", ("off", "nginx", "off", "nginx")),
    "cache_group": ("1", "root", "2", (None, "1", "root", "2")),
    "cache": ('"/a"', "/b", "c", (Path("/cache"), Path("/a"), Path("/b"), Path("c"))),
    "cache_size": ('"1GiB"', "500 mb", "20%", (None, Amount(2**30), Amount(500_000_000), Amount(share=0.2))),
    "certificates": ('"/a"', "/b", "c", (Path("/state/certificates"), Path("/a"), Path("/b"), Path("c"))),
    "acme": (
        '"a@m.example"',
        "b@m.example",
        "c@m.example",
        (None, "a@m.example", "b@m.example", "c@m.example"),
    ),
    "acme_directory": (
        '"https://a.example/d"',
        "https://b.example/d",
        "https://c.example/d",
        (
            "https://acme-v02.api.letsencrypt.org/directory",
            *("https://a.example/d", "https://b.example/d", "https://c.example/d"),
        ),
    ),
    "acme_ca_file": (f'"{__file__}"', __file__, __file__, (None, HERE, HERE, HERE)),
    "min_free": ("1000", "1.5k", "12.5%", (None, Amount(1000), Amount(1500), Amount(share=0.125))),
    "tag_ttl": ("5", "2.5", "0", (60, 5, 2.5, 0)),
    "stale_while_revalidate": ("5", "2.5", "60s", (0, 5, 2.5, 60)),
    "keep_deleted_upstream": ("true", "false", "true", (False, True, False, True)),
    "offline": ("true", "false", "true", (False, True, False, True)),
    "store": ('"s3://a/b/c"', "gs://a", "az://a/b/", (None, "s3://a/b/c", "gs://a", "az://a/b")),
    "store_endpoint": (
        '"http://a:9000"',
        "https://b",
        "https://C",
        (None, "http://a:9000", "https://b", "https://c"),
    ),
    "store_days": ("1", "30", "90", (None, 1, 30, 90)),
    "peers": (
        '["http://a:8080", "https://b"]',
        "http://10.0.0.1:8080 http://[::1]:8080",
        ["http://C:8080"],
        (
            (),
            ("http://a:8080", "https://b"),
            ("http://10.0.0.1:8080", "http://[::1]:8080"),
            ("http://c:8080",),
        ),
    ),
    "redirect": ("true", "false", "true", (False, True, False, True)),
    "export": ("true", "false", "true", (False, True, False, True)),
    "images": ("true", "false", "true", (False, True, False, True)),
    "history": ('"/a"', "false", "c", (Path("/state/history"), Path("/a"), None, Path("c"))),
    "history_days": ("1", "30", "90d", (30, 1, 30, 90)),
    "history_size": ('"1MB"', "2MB", "3000000", (200_000_000, 1_000_000, 2_000_000, 3_000_000)),
    "history_addresses": ('"none"', "network", "full", ("full", "none", "network", "full")),
    "workers": ("2", "3", "4", (None, 2, 3, 4)),
    "grace": ("5", "2.5", "0", (300, 5, 2.5, 0)),
    "log_format": ('"json"', "text", "json", ("text", "json", "text", "json")),
    "default": ('"docker"', "ghcr", "quay", (None, "docker", "ghcr", "quay")),
}
"""Values in the file, the environment and the command line, and the results with none to all of them."""


def written(directory: Path, text: str) -> Path:
    """Write a file of settings and return its path."""
    path = directory / "dockmirror.toml"
    path.write_text(text, "utf-8")
    return path


def refused(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> str:
    """Return the first problem of invalid settings without the line's number; each problem is one line."""
    with pytest.raises(ConfigurationError) as caught:
        load(options, environ or {})
    assert all(len(problem.splitlines()) == 1 for problem in caught.value.problems)
    return re.sub(r"(\.toml):[0-9]+: ", r"\1: ", caught.value.problems[0], count=1)


def attempted(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings | ConfigurationError:
    """Return the settings or the message for invalid ones; any other error fails the test."""
    try:
        return load(options, environ)
    except ConfigurationError as error:
        return error


NEEDED = {"accel": 'trust_proxy = ["127.0.0.1"]\ncache_group = "0"'}
"""Other settings that a setting needs."""


def test_the_table_above_has_every_setting() -> None:
    assert {*KEYS, "access", "budget", "gate", "policy", "retention", "sync", "upstreams"} == set(
        Settings.model_fields
    )


@pytest.mark.parametrize("key", KEYS)
def test_the_command_line_overrides_the_environment_and_the_file(tmp_path: Path, key: str) -> None:
    in_file, in_environment, on_the_line, expected = KEYS[key]
    below = {"CACHE_DIRECTORY": "/cache", "STATE_DIRECTORY": "/state"}
    path = written(tmp_path, f"{key} = {in_file}\n{NEEDED.get(key, '')}")
    environ = {**below, f"DOCKMIRROR_{key.upper()}": in_environment}
    settings = [
        load({}, below),
        load({"config": path}, below),
        load({"config": path}, environ),
        load({"config": path, key: on_the_line}, environ),
    ]
    assert tuple(getattr(s, key) for s in settings) == expected


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_option_does_not_override(key: str) -> None:
    """Options have all keys, and most are None or empty lists."""
    nothing: list[object] = [None, [], ""]
    for empty in nothing:
        assert load({key: empty, "config": None, "upstream": []}, {}) == load({}, {})


def test_the_file_may_be_named_in_the_environment(tmp_path: Path) -> None:
    """The command line overrides it; an empty name means no file."""
    path = written(tmp_path, 'domain = "a.example"')
    assert load({}, {"DOCKMIRROR_CONFIG": str(path)}).domain == "a.example"
    assert load({"config": path}, {"DOCKMIRROR_CONFIG": "/nowhere"}).domain == "a.example"
    assert load({}, {"DOCKMIRROR_CONFIG": ""}) == load({}, {})


def test_a_setting_changes_only_its_own_key_of_an_upstream(tmp_path: Path) -> None:
    path = written(tmp_path, '[upstreams.docker]\nshort_names = "redirect"\nallow_networks = "10.0.0.0/8"')
    before, after = load({}, {}), load({"config": path}, {})
    changed = {"short_names": "redirect", "allow_networks": ("10.0.0.0/8",)}
    assert after.upstreams["docker"] == before.upstreams["docker"].model_copy(update=changed)
    assert {**after.upstreams, "docker": None} == {**before.upstreams, "docker": None}


def test_an_upstream_is_added_by_its_name(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    path = written(
        tmp_path,
        f"""[upstreams.inner]
        url = "https://Registry.Inner.example:5000/"
        realms = ["https://tokens.inner.example"]
        ca_file = "{certificate}"
        """,
    )
    assert load({"config": path}, {}).upstreams["inner"] == UpstreamSettings(
        url=("https://registry.inner.example:5000",),
        realms=("https://tokens.inner.example",),
        ca_file=SettingsFile(certificate),
    )


def test_upstreams_may_be_given_as_name_and_url(tmp_path: Path) -> None:
    """Pairs are separated by spaces or repeated, and have the same precedence for each upstream."""
    path = written(tmp_path, '[upstreams.one]\nurl = "http://file"\nregistry = "one.example"\n')
    environ = {"DOCKMIRROR_UPSTREAM": "one=http://environment  two=https://two:5000"}
    settings = load({"config": path, "upstream": ["two=http://line", "three=http://line"]}, environ)
    addresses = {name: settings.upstreams[name].url for name in ("one", "two", "three", "ghcr")}
    assert addresses == {
        "one": "http://environment",
        "two": "http://line",
        "three": "http://line",
        "ghcr": "https://ghcr.io",
    }
    assert settings.upstreams["one"].registry == "one.example"


def test_an_upstream_url_without_a_name_is_refused() -> None:
    assert refused({"upstream": ["inner"]}).startswith("the command line: upstream: expected NAME=URL")
    assert refused({}, {"DOCKMIRROR_UPSTREAM": "a=http://a inner"}).startswith("the environment: upstream: ")


def test_a_path_in_an_upstream_url_is_a_prefix_of_repositories(tmp_path: Path) -> None:
    """A trailing slash is dropped; the registry whose images lie there has to be named."""
    text = '[upstreams.a]\nurl = "https://Harbor.example/hub/a/"'
    path = written(tmp_path, text)
    message = refused({"config": path})
    assert message.startswith(f"{path}: upstreams.a.url: has a path; expected 'registry' beside it")
    settings = load({"config": written(tmp_path, text + '\nregistry = "a.example"')}, {})
    upstream = settings.upstreams["a"]
    assert (upstream.origin, upstream.prefix) == ("https://harbor.example", "hub/a")
    assert upstream.url == "https://harbor.example/hub/a"


def test_a_new_upstream_has_safe_defaults() -> None:
    """No other host receives secrets, no name is completed, and no network is allowed."""
    upstream = load({"upstream": ["inner=http://inner"]}, {}).upstreams["inner"]
    assert (upstream.registry, upstream.realms, upstream.aliases, upstream.short_names) == ("", (), (), "off")
    assert (upstream.allow_networks, upstream.ca_file) == ((), None)


def test_the_default_may_be_any_upstream(tmp_path: Path) -> None:
    path = written(tmp_path, 'default = "inner"')
    assert load({"config": path, "upstream": ["inner=http://inner"]}, {}).default == "inner"


LISTS = {"names", "listen", "networks", "trust_proxy", "upstream"}
WRONG = {
    "domain": ["https://a.example", "a.example:80", "a/b", "a b", "-a", "", "é.example"],
    "hosts": ["a.{domain}", "{name}.{other}", "{name}/x", "{name}.{domain}:80", "{name", "{{name}}", ""],
    "names": ["a/b", "a:80", "https://a"],
    "listen": ["TCP:8080", "/run/a.sock", "99999", "mirror.lan:8080", "1.2.3:80", "::1:80"],
    "networks": ["lan", "10.0.0.1/8", "10.0.0.0/33", "localhost", "unix", "127.0.0.1:80"],
    "trust_proxy": ["nginx", "10.0.0.1/8", "/run/nginx.sock"],
    "default": ["nowhere", "Docker", "docker.io", ""],
    "cache_size": ["all", "-1", "1,5GB", "1PB", "1EiB", "GB", ""],
    "min_free": ["101%", "%", "0x10", "10 percent", ""],
    "tag_ttl": ["-1", "1 y", "inf", "1e3", ""],
    "stale_while_revalidate": ["-1", "soon", ""],
    "keep_deleted_upstream": ["maybe", ""],
    "offline": ["maybe", ""],
    "cache": [""],
    "certificates": [""],
    "acme": ["me", "me@", "@a.example", "mailto:a@a.example", "a@b@c", ""],
    "acme_directory": ["http://a.example", "a.example", "https://", "https://me:pw@a.example", ""],
    "store": ["bucket", "s3:/a", "s3://", "s3://key:secret@a", "file:///a", "s3://a/b?c=d", ""],
    "store_endpoint": ["localhost", "https://key:secret@a", "https://a/b"],
    "store_days": ["0", "0.5", "never"],
    "redirect": ["maybe"],
    "export": ["maybe", ""],
    "images": ["maybe"],
    "history": [""],
    "history_days": ["0", "0.5", "never"],
    "history_size": ["0", "50%", "all"],
    "history_addresses": ["half", ""],
    "workers": ["0", "65", "many", "1.5"],
    "grace": ["-1", "soon", "nan", "inf", ""],
    "log_format": ["xml", "JSON", ""],
    "upstream": [
        "inner",
        "https://inner.example",
        "=",
        "Inner=http://inner",
        "a.b=http://inner",
        "a=inner",
        "a=",
    ],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_an_invalid_value_is_reported_with_its_key_and_source(key: str, value: str) -> None:
    assert refused({}, {f"DOCKMIRROR_{key.upper()}": value}).startswith(f"the environment: {key}")
    if value:
        on_the_line = [value] if key in LISTS else value
        assert refused({key: on_the_line}).startswith(f"the command line: {key}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen = 5.5", "listen: expected a list, such as"),
        ("networks = [5]", "networks.0: "),
        ('networks = ["private", "lan"]', "networks.1: expected a network such as"),
        (
            'networks = ["10.1.2.3/8"]',
            'networks.0: expected a network such as 192.168.0.0/16, or "private", or "public"'
            "; 10.1.2.3/8 lies in 10.0.0.0/8",
        ),
        ('domian = "a.example"', "domian: there is no such setting; is 'domain' meant?"),
        ("zzz = 1", "zzz: there is no such setting"),
        ('htpasswd = "x"', "htpasswd: there is no such setting here: it belongs in [access]"),
        ("segments = 2", "segments: there is no such setting here: it belongs in an upstream's table"),
        ('upstream = ["a=https://a"]', "upstream: there is no such setting"),
        (
            '[upstream.reg]\nurl = "https://reg.lan"',
            "upstream: there is no such setting; is 'upstreams' meant?",
        ),
        ("[[upstream]]\nname = 'a'", "upstream: there is no such setting; is 'upstreams' meant?"),
        ('[[policies]]\nimages = "**"', "policies: there is no such setting; is 'policy' meant?"),
        ("[rewrite]\na = 'b'", "rewrite: there is no such setting here: it belongs in an upstream's table"),
        ('config = "x"', "config: there is no such setting"),
        ("upstreams = 5", "upstreams: expected a table for each"),
        ("[upstreams]\ndocker = 5", "upstreams: expected a table for each"),
        (
            "[upstreams]\ndocker-staging = 5\n[upstreams.docker]\nurl=5",
            "upstreams: expected a table for each",
        ),
        ("access = 1", "access: expected a table"),
        ('cache = "\\u0000"', "cache: expected a path without null characters"),
        ('[access]\nkeys = "a\\u0000"', "access.keys: expected a path without null characters"),
        ("[access]\nrequests = 0", "access.requests: "),
        ('[access]\nbytes = "20%"', "access.bytes: expected a number of bytes"),
        ("[access]\nbytes = 0", "access.bytes: expected a number of bytes"),
        ("[access]\nhead_timeout = 0", "access.head_timeout: "),
        ("[access]\nstall_timeout = 4000", "access.stall_timeout: "),
        ("[access]\nusers = 1", "access.users: there is no such setting"),
        (
            'cache = "/c"\n[access]\nkeys = "/c/d/../keys"',
            "access.keys: expected a file outside the cache directory",
        ),
        ('[upstreams.inner]\nregistry = "x"', "upstreams.inner.url: is missing"),
        ('[upstreams.Inner]\nurl = "http://x"', "upstreams.Inner: expected a label"),
        (
            '[upstreams.docker]\nurls = "x"',
            "upstreams.docker.urls: there is no such setting; is 'url' meant?",
        ),
        (
            '[upstreams.docker]\ncache = "x"',
            "upstreams.docker.cache: there is no such setting here: it belongs above the first table",
        ),
        ('[upstreams.docker]\nca_file = "/"', "upstreams.docker.ca_file: / is not a file"),
        (f'[access]\nhtpasswd = "/{LONG}"', f"access.htpasswd: /{LONG} cannot be read: File name too long"),
        ('[upstreams.docker]\nshort_names = "x"', "upstreams.docker.short_names: "),
        (
            '[upstreams.docker]\nca_file = "/nowhere.pem"',
            "upstreams.docker.ca_file: /nowhere.pem cannot be read: No such file",
        ),
        ('[upstreams.docker]\nallow_networks = ["lan"]', "upstreams.docker.allow_networks.0: expected"),
        ('[upstreams.docker]\nrealms = ["auth.docker.io"]', "upstreams.docker.realms.0: expected an address"),
        ('[upstreams.docker]\nusername = "a:b"', "upstreams.docker.username: expected a username"),
        ('[upstreams.docker]\nusername = ""', "upstreams.docker.username: expected a username"),
        ('[upstreams.docker]\nallow = ["a b"]', "upstreams.docker.allow.0: expected a pattern"),
        ('[upstreams.docker]\nallow = ["library/"]\ndeny = [":1"]', "upstreams.docker.deny.0: expected"),
        ('[upstreams.docker]\ndeny = ["a:1@sha256:0"]', "upstreams.docker.deny.0: expected a pattern"),
        (
            '[upstreams.docker]\nrewrite = { "a/" = "b" }',
            "upstreams.docker.rewrite.a/: expected the first components",
        ),
        (
            '[upstreams.docker]\nrewrite = { a = "B" }',
            "upstreams.docker.rewrite.a: expected the first components",
        ),
        (
            '[upstreams.docker]\ntag_ttl = { "a@sha256:*" = 5 }',
            "upstreams.docker.tag_ttl.a@sha256:*: expected",
        ),
        (
            '[upstreams.docker]\ntag_ttl = { "A" = 5 }',
            "upstreams.docker.tag_ttl.A: expected a pattern of tags",
        ),
        ('[upstreams.docker]\ntag_ttl = { "a" = -1 }', "upstreams.docker.tag_ttl.a: "),
        ('[upstreams.docker]\ntag_ttl = "soon"', "upstreams.docker.tag_ttl.**: expected a duration"),
        ("domain = 5", "domain: expected a text in quotes, not 5"),
        ("workers = 0", "workers: expected at least 1, not 0"),
        ('log_format = "JSON"', "log_format: expected 'text' or 'json', not \"JSON\"; is 'json' meant?"),
        ('default = "dokcer"', "default: expected the name of an upstream: docker, "),
        ('export = "perhaps"', 'export: expected true or false, not "perhaps"'),
        ("grace = true", "grace: expected a duration: seconds, or a number with a unit"),
        ("[access]\nwindow = 0", "access.window: expected a duration above 0"),
        ('[access]\nhead_timeout = "2h"', "access.head_timeout: expected a duration of at most 1h"),
        ('store_days = "12h"', "store_days: expected a number of whole days"),
        ("[upstreams.docker]\nurl = []", "upstreams.docker.url: "),
        ('[upstreams.docker]\nurl = ["https://a", "b"]', "upstreams.docker.url.1: expected an address"),
        ("[upstreams.docker]\nurl = [5]", "upstreams.docker.url.0: "),
        ('[upstreams.docker]\ncredential_helper = "a b"', "upstreams.docker.credential_helper: expected"),
        ('[upstreams.docker]\ncredential_helper = "a/b"', "upstreams.docker.credential_helper: expected"),
        ('[upstreams.docker]\ncredential_helper = ""', "upstreams.docker.credential_helper: expected"),
        (
            "[upstreams.docker]\nwrites = true\nstale_while_revalidate = 5",
            "upstreams.docker.writes: cannot be combined with"
            " 'upstreams.docker.stale_while_revalidate': a tag must name what was pushed at once",
        ),
        ("[upstreams.docker]\nrefresh_ahead = 5", "upstreams.docker.refresh_ahead: expected true or false"),
        ("[upstreams.docker]\nsegments = 0", "upstreams.docker.segments: "),
        ("[upstreams.docker]\nsegments = 17", "upstreams.docker.segments: "),
        ('[upstreams.docker]\npassword = "x"', "upstreams.docker.password: there is no such setting"),
        ('[upstreams.docker]\npassword_file = "/nowhere"', "upstreams.docker.password_file: "),
        ("cache = 5", "cache: "),
        ('accel = "apache"', "accel: expected 'off' or 'nginx', not \"apache\""),
        ('cache_group = "none-such"', "cache_group: expected a group of this machine, not 'none-such'"),
        ("cache_size = true", "cache_size: expected a number of bytes"),
        ("cache_size = -1", "cache_size: expected a number of bytes"),
        ("domain = ", "is not TOML: "),
        *(
            (f"[upstreams.quay]\n{key}", f"upstreams.quay.{where}: expected the first part of image names")
            for key, where in (
                ("registry = 'http://quay.io'", "registry"),
                ("registry = '../quay.io'", "registry"),
                ("aliases = ['quay.io', 'A B']", "aliases.1"),
            )
        ),
        ("domain = 'a'\ndomain = 'b'", "is not TOML: "),
        ("\x00", "is not TOML: "),
    ],
)
def test_an_invalid_value_in_the_file_is_reported_with_its_path(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path, text)
    assert refused({"config": path}).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "registry",
            "registry:5000",
            "//registry",
            "ftp://registry",
            "https://",
            "https://registry/v2/",
        ),
        *("https://registry/A", "https://registry/a//b", "https://registry/a?b"),
        *("https://registry?a", "https://registry#a", "https://me:pw@registry", "https://me@registry"),
        *(
            "https://registry:port",
            "https://registry:99999",
            "https://registry:0",
            "https://[::1",
            "https:registry",
        ),
        *("https://h:", "https://a b", "https://[fe80::1%25eth0]", "https://bücher.example"),
    ],
)
def test_an_address_with_more_than_an_origin_and_a_prefix_is_refused(tmp_path: Path, url: str) -> None:
    """Anything else would be lost or sent to the wrong host."""
    path = written(tmp_path, f'[upstreams.inner]\nurl = "{url}"')
    message = refused({"config": path})
    assert message.startswith(f"{path}: upstreams.inner.url: ")
    assert "pw" not in message


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("HTTPS://Registry.Example/", "https://registry.example"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://[2001:DB8::1]:5000/", "https://[2001:db8::1]:5000"),
        ("http://Docker_Registry:5000", "http://docker_registry:5000"),
        ("https://registry.example.:443", "https://registry.example.:443"),
    ],
)
def test_an_address_is_normalized(url: str, origin: str) -> None:
    assert load({"upstream": [f"inner={url}"]}, {}).upstreams["inner"].url == origin


def test_the_error_names_the_source_with_precedence(tmp_path: Path) -> None:
    """When several sources set the key, the value in force is the invalid one."""
    path = written(tmp_path, 'domain = "a b"\n[upstreams.inner]\nurl = "x"')
    environ = {"DOCKMIRROR_DOMAIN": "c d", "DOCKMIRROR_UPSTREAM": "inner=http://inner"}
    assert refused({"config": path}, environ).startswith("the environment: domain: ")
    assert refused({"config": path, "domain": "e f"}, environ).startswith("the command line: domain: ")
    assert refused({"config": path, "domain": "e", "upstream": ["inner=y"]}, environ).startswith(
        "the command line: upstreams.inner.url: "
    )


@pytest.mark.parametrize("key", ["foo", "upstreams", "domains", ""])
def test_an_unknown_variable_is_refused(key: str) -> None:
    assert refused({}, {f"DOCKMIRROR_{key.upper()}": "x"}).startswith(f"the environment: {key}: ")


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    assert refused({"config": tmp_path / "none"}).startswith(f"{tmp_path / 'none'}: cannot be read: ")
    assert refused({"config": str(tmp_path)}).startswith(f"{tmp_path}: cannot be read: ")
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe")
    assert refused({"config": path}).startswith(f"{path}: is not TOML: ")


def test_the_default_directory_of_the_cache() -> None:
    """It is systemd's, or else the system's for root and the user's for everybody else."""
    at_home = {"HOME": "/home/me"}
    assert load({}, {**at_home, "CACHE_DIRECTORY": "/a:/b"}).cache == Path("/a")
    root = Path("/var/cache/dockmirror") if os.getuid() == 0 else None
    assert load({}, at_home).cache == (root or Path("/home/me/.cache/dockmirror"))
    assert load({}, {**at_home, "XDG_CACHE_HOME": "/x"}).cache == (root or Path("/x/dockmirror"))


def test_an_amount_may_be_a_share() -> None:
    """The share is one of the cache's file system."""
    assert Amount(1000).of(5) == 1000
    assert [bool(amount) for amount in (Amount(), Amount(0), Amount(1), Amount(share=0.1))] == [
        False,
        False,
        True,
        True,
    ]
    assert Amount(share=0.2).of(1000) == 200


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ({}, "docker.localhost"),
        ({"domain": "Mirror.Example"}, "docker.mirror.example"),
        ({"hosts": "R-{name}.{domain}", "domain": "a.example"}, "r-docker.a.example"),
        ({"hosts": "{name}"}, "docker"),
    ],
)
def test_an_upstream_has_a_virtual_host(options: Mapping[str, str], host: str) -> None:
    assert load(options, {}).host("docker") == host


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    """The line is that at which the statement begins."""
    text = """# A comment
    domian = "a.example"
    networks = [
        "private",
        "lan",
    ]
    [upstreams.docker]
    timeout = "60 parsecs"

    [upstreams.inner]
    registry = "inner"
    """
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load({"config": path}, {"DOCKMIRROR_GRACE": "soon"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 settings are invalid:"
    assert sorted(line.strip().partition(": ")[0] for line in lines[1:]) == [
        f"{path}:10", f"{path}:2", f"{path}:3", f"{path}:8", "the environment"
    ]  # fmt: skip


def test_problems_of_settings_that_are_valid_alone_are_reported_at_once_too(tmp_path: Path) -> None:
    path = written(tmp_path, '[access]\nkeys = "/c/keys"\n[upstreams.quay]\nusername = "a"\nwrites = true')
    with pytest.raises(ConfigurationError) as caught:
        load({"config": path, "cache": "/c"}, {})
    assert [problem.removeprefix(f"{path}:").partition(": ")[0] for problem in caught.value.problems] == [
        "networks", "2", "5"
    ]  # fmt: skip


def test_a_problem_in_one_of_several_tables_has_its_line(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[[retention]]\nimages = "a/**"\nunused = "9d"\n\n[[retention]]\nimages = "b/**"\nunused = "soon"\n',
    )
    with pytest.raises(ConfigurationError, match=rf"^{path}:7: retention.1.unused: expected a duration"):
        load({"config": path}, {})


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, 'domain = "a.example"\ngrace = \n')
    with pytest.raises(ConfigurationError, match=rf"^{path}:2: is not TOML: "):
        load({"config": path}, {})


@pytest.mark.parametrize(
    ("written_as", "seconds"),
    [("90", 90), ("1.5", 1.5), ("60s", 60), ("10m", 600), ("2 min", 120), ("7d", 604_800), ("250ms", 0.25)],
)
def test_durations_may_have_a_unit(tmp_path: Path, written_as: str, seconds: float) -> None:
    """Durations have the same form in the file, in the environment and on the command line."""
    path = written(
        tmp_path, f'grace = "{written_as}"\n[upstreams.docker]\ntag_ttl = {{"a/*" = "{written_as}"}}'
    )
    assert load({"config": path}, {}).grace == seconds
    assert load({"config": path}, {}).upstreams["docker"].tag_ttl == {"a/*": seconds}
    assert load({"tag_ttl": written_as}, {"DOCKMIRROR_GRACE": written_as}).tag_ttl == seconds


def test_days_may_be_given_as_a_duration() -> None:
    """The bucket's content is deleted after whole days."""
    assert [load({"store_days": each}, {}).store_days for each in ("90", "90d", "2w")] == [90, 90, 14]


@given(
    st.dictionaries(st.sampled_from([*KEYS, "upstream"]), st.text(st.characters(codec="utf-8"), min_size=1))
)
def test_any_value_is_accepted_or_refused_with_a_message(options: dict[str, str]) -> None:
    environ = {f"DOCKMIRROR_{key.upper()}": value for key, value in options.items()}
    for settings in (attempted(options, {}), attempted({}, environ)):
        if isinstance(settings, ConfigurationError):
            assert settings.problems
            for problem in settings.problems:
                assert problem.startswith(("the command line: ", "the environment: "))


TEAM = '[[upstreams.docker.accounts]]\nname = "team"\nrepositories = ["team/**"]\n'
LOGIN = 'username = "robot"\n'


@pytest.mark.parametrize(
    ("account", "key"),
    [
        ('[upstreams.docker]\nusername = "alice"\n', "username"),
        ('[upstreams.docker]\ncredential_helper = "ecr-login"\n', "credential_helper"),
        (TEAM + LOGIN, "accounts"),
    ],
)
def test_an_account_of_the_mirror_requires_networks(tmp_path: Path, account: str, key: str) -> None:
    """Any source may set the networks, even to the default value; then all clients share the account."""
    path, naming = written(tmp_path, account), tmp_path / "naming.toml"
    message = refused({"config": path})
    assert message.startswith("networks: is missing: every client that reaches the mirror")
    assert f"account of 'upstreams.docker.{key}'" in message
    naming.write_text('networks = ["private"]\n' + account)
    for options, environ in (
        ({"config": naming}, {}),
        ({"config": path, "networks": ["private"]}, {}),
        ({"config": path}, {"DOCKMIRROR_NETWORKS": "private"}),
    ):
        settings = load(options, environ)
        assert settings.networks == ("private",)
        assert [settings.is_shared(settings.upstreams[name]) for name in ("docker", "quay")] == [True, False]
    assert Settings.model_validate_json(settings.as_json()).upstreams == settings.upstreams


def test_the_account_of_a_credential_helper_is_not_that_of_a_user_of_its_name() -> None:
    helper = UpstreamSettings(url=("https://a",), credential_helper="ecr-login")
    user = UpstreamSettings(url=("https://a",), username="ecr-login")
    assert None not in (helper.account, user.account)
    assert helper.account != user.account


def test_an_upstream_may_have_several_addresses(tmp_path: Path) -> None:
    """The first one identifies the upstream; each one alone makes an upstream with the same settings."""
    path = written(
        tmp_path, '[upstreams.docker]\nurl = ["https://registry-1.docker.io", "https://Mirror.example/"]'
    )
    docker = load({"config": path}, {}).upstreams["docker"]
    assert (docker.url, docker.replicas) == ("https://registry-1.docker.io", False)
    assert [each.urls for each in docker.by_address()] == [
        ("https://registry-1.docker.io",),
        ("https://mirror.example",),
    ]
    assert docker.by_address()[0] == load({}, {}).upstreams["docker"]


def test_users_replace_networks_for_an_account_of_the_mirror(tmp_path: Path) -> None:
    """A password file limits access as networks do."""
    file = tmp_path / "htpasswd"
    file.touch()
    table = {"docker": {"url": "https://a.example", "username": "alice"}}
    assert load({"upstreams": table}, {"DOCKMIRROR_ACCESS_HTPASSWD": str(file)}).access.htpasswd == file


def test_the_access_table_is_merged_key_by_key(tmp_path: Path) -> None:
    path = written(tmp_path, "[access]\nrequests = 5\nwindow = 9\n")
    access = load({"config": path}, {"DOCKMIRROR_ACCESS_REQUESTS": "7", "STATE_DIRECTORY": "/state"}).access
    assert (access.requests, access.window, access.keys) == (7, 9, Path("/state/keys"))
    assert access.bytes is None


def test_the_origin_of_a_value(tmp_path: Path) -> None:
    """It is the source with the highest precedence, or the defaults."""
    path = written(tmp_path, 'domain = "a.example"\ngrace = 1\n[upstreams.docker]\ntimeout = 3\n')
    sources = read_sources(
        {"config": path, "grace": "2", "upstream": ["lan=http://lan"]}, {"DOCKMIRROR_NAMES": "m"}
    )
    assert {
        ".".join(where): find_origin(sources, where)
        for where in (
            ["domain"], ["grace"], ["names"], ["hosts"], ["cache"], ["access", "keys"],
            ["upstreams", "docker", "timeout"], ["upstreams", "docker", "url"], ["upstreams", "lan", "url"],
        )
    } == {
        "domain": str(path), "grace": "the command line", "names": "the environment", "hosts": "default",
        "cache": "default", "access.keys": "default", "upstreams.docker.timeout": str(path),
        "upstreams.docker.url": "known", "upstreams.lan.url": "the command line",
    }  # fmt: skip


def test_settings_survive_json(tmp_path: Path) -> None:
    """Defaults and given values of every type are the same in another process."""
    table = f"""
cache_size = "5GB"
min_free = "12.5%"
[access]
bytes = "1GB"
[upstreams.docker]
ca_file = "{__file__}"
addresses = {{ "a.example" = ["192.0.2.1"] }}
rewrite = {{ "a" = "b" }}
proxy = "http://name:s3cret@proxy:1"
url = ["https://a.example", "https://b.example"]
tag_ttl = {{ "library/*" = 5 }}
"""
    for options in ({}, {"config": written(tmp_path, table), "networks": ["public"]}):
        settings = load(options, {})
        assert Settings.model_validate_json(settings.as_json()) == settings


def test_another_process_gets_the_files_as_they_were_read(tmp_path: Path) -> None:
    """It needs none of them, and its errors are in our words."""
    names = ("password", "key", "secret", "htpasswd")
    password, key, secret, htpasswd = paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_text(path.name)
    options = {
        "access": {"htpasswd": str(htpasswd)},
        "gate": {"secret_file": str(secret)},
        "policy": [{"images": "**", "signed_by": [str(key), {"issuer": "a", "subject": "b"}]}],
        "upstreams": {"docker": {"accounts": [
            {"name": "a", "repositories": ["a/*"], "username": "a", "password_file": str(password)}
        ]}},
        "networks": ["private"],
    }  # fmt: skip
    settings = load(options, {})

    def read(of: Settings) -> list[SettingsFile]:
        (account,), (policy,) = of.upstreams["docker"].accounts, of.policy
        files = [account.password_file, (policy.signed_by or [None])[0], of.gate.secret_file]
        return [file for file in files if isinstance(file, SettingsFile)]

    for file in read(settings):
        file.read_once()
    for path in paths:
        path.unlink()
    packed = json.loads(json.dumps(pack(settings)))
    assert unpack(packed) == settings
    assert [file.read_once() for file in read(unpack(packed))] == [b"password", b"key", b"secret"]
    with pytest.raises(ConfigurationError, match=r"^workers: expected at least 1, not 0$"):
        unpack({**packed, "settings": packed["settings"].replace('"workers":null', '"workers":0')})


def test_a_file_is_read_once_for_each_reading_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for text in ("old", "new"):
        file.write_text(text)
        read = load({"gate": {"secret_file": str(file)}}, {}).gate.secret_file
        assert read is not None
        for _ in range(2):
            assert read.read_once() == text.encode()
            file.write_text("changed")


def test_variables_that_are_no_settings_are_ignored() -> None:
    """Kubernetes sets variables with the prefix for Services with such names; no setting is a password."""
    links = {
        "DOCKMIRROR_SERVICE_HOST": "10.0.0.1", "DOCKMIRROR_SERVICE_PORT": "80",
        "DOCKMIRROR_SERVICE_PORT_HTTP": "80", "DOCKMIRROR_PORT": "tcp://10.0.0.1:80",
        "DOCKMIRROR_PORT_80_TCP": "tcp://10.0.0.1:80", "DOCKMIRROR_PORT_80_TCP_PROTO": "tcp",
        "DOCKMIRROR_PORT_80_TCP_PORT": "80", "DOCKMIRROR_PORT_80_TCP_ADDR": "10.0.0.1",
        "DOCKMIRROR_EU_SERVICE_HOST": "10.0.0.2", "DOCKMIRROR_EU_PORT_80_TCP_ADDR": "10.0.0.2",
    }  # fmt: skip
    others = {"DOMAIN": "a.example", "NOT_DOCKMIRROR_DOMAIN": "x", "DOCKMIRROR_PASSWORD_DOCKER": "s3cret"}
    assert load({}, {**links, **others}) == load({}, {})
    assert refused({}, {"DOCKMIRROR_PORTS": "80"}).startswith("the environment: ports: ")


def test_names_need_no_other_file(tmp_path: Path) -> None:
    """A node knows the registries without the mirror's certificates and passwords."""
    text = 'domain = "m.example"\n[access]\nhtpasswd = "/none"\n' + (
        '[upstreams.own]\nurl = "https://own.example"\nca_file = "/none"\nusername = "a"\n'
    )
    settings = load_names({"config": written(tmp_path, text)}, {"DOCKMIRROR_NETWORKS": "10.0.0.0/8"})
    assert settings.host("own") == "own.m.example"
    assert set(settings.upstreams) > {"own", "docker"}
    assert refused({"config": written(tmp_path, text)})


PRIVATE = "https://registry.example.com"


def upstreams(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the urls of Docker Hub's upstreams, and of those whose names begin with ``a``."""
    found = load({"config": written(tmp_path, text)}, environ or {}).upstreams
    return {name: its.url for name, its in found.items() if name.startswith(("docker", "a"))}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f'[upstreams.a]\nurl = "{PRIVATE}"\nregistry = "docker.io"', ("a", "docker")),
        (f'[upstreams.docker-staging]\nurl = "{PRIVATE}"', ("docker-staging", "docker")),
        (f'[upstreams.docker-staging]\nurl = ["https://registry-1.docker.io", "{PRIVATE}"]', ("docker-", "")),
        (
            f'[upstreams.a]\nurl = "http://x:1"\n[upstreams.b]\nurl = "{PRIVATE}"\nregistry = "x_1"',
            ("b", "a"),
        ),
    ],
)
def test_one_registry_name_at_two_addresses_is_refused(
    tmp_path: Path, text: str, names: tuple[str, str]
) -> None:
    """Contents of one would be served for the other."""
    with pytest.raises(ConfigurationError) as raised:
        upstreams(tmp_path, text)
    assert all(f"upstreams.{name}" in str(raised.value) for name in names)
    assert "same_registry_as = " in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        f'[upstreams.a]\nurl = "{PRIVATE}"\nregistry = "docker.io"\nsame_registry_as = "docker"',
        f'[upstreams.a]\nurl = "{PRIVATE}"\nregistry = "docker.io"\nsame_registry_as = "docker-staging"',
        f'[upstreams.docker]\nurl = "{PRIVATE}"\nsame_registry_as = "docker-staging"'
        '\n[upstreams.docker-staging]\nurl = "https://registry-1.docker.io"',
        f'[upstreams.a]\nurl = "{PRIVATE}"\n[upstreams.a2]\nurl = "{PRIVATE}"',
        f'[upstreams.a]\nurl = "{PRIVATE}"\n'
        '[upstreams.b]\nurl = "http://b:1"\nregistry = "registry.example.com"\nsame_registry_as = "a"\n'
        '[upstreams.c]\nurl = "http://c:1"\nregistry = "registry.example.com"\nsame_registry_as = "b"',
    ],
)
def test_the_same_registry_may_have_two_upstreams(tmp_path: Path, text: str) -> None:
    """The operator declares it, or the addresses are equal."""
    assert PRIVATE in upstreams(tmp_path, text).values()


@pytest.mark.parametrize("other", ["nobody", "quay"])
def test_same_registry_as_another_registry_is_refused(tmp_path: Path, other: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"toml:4: upstreams.a.same_registry_as: expected .* docker.io"
    ):
        upstreams(
            tmp_path,
            f'[upstreams.a]\nurl = "{PRIVATE}"\nregistry = "docker.io"\nsame_registry_as = "{other}"',
        )


def test_an_invalid_address_that_another_registry_shares_is_reported_once(tmp_path: Path) -> None:
    path = written(tmp_path, '[upstreams.docker]\nurl = "ftp://hub"\n')
    with pytest.raises(ConfigurationError) as raised:
        load({"config": path}, {})
    assert len(raised.value.problems) == 1
    assert raised.value.problems[0].startswith(f"{path}:2: upstreams.docker.url: expected")


def test_docker_staging_follows_the_address_of_docker(tmp_path: Path) -> None:
    """It does not when it has an address of its own."""
    text = f'[upstreams.docker]\nurl = "{PRIVATE}"\n'
    assert upstreams(tmp_path, text) == {"docker": PRIVATE, "docker-staging": PRIVATE}
    other = "https://other.example"
    environ = {"DOCKMIRROR_UPSTREAM": f"docker={other}"}
    assert upstreams(tmp_path, text, environ) == {"docker": other, "docker-staging": other}
    own = f'[upstreams.docker-staging]\nurl = "{other}"\nsame_registry_as = "docker"'
    assert upstreams(tmp_path, text + own) == {"docker": PRIVATE, "docker-staging": other}
    sources = read_sources({"config": written(tmp_path, text)}, {})
    path = str(tmp_path / "dockmirror.toml")
    assert [find_origin(sources, ["upstreams", name, "url"]) for name in ("docker", "docker-staging")] == [
        path
    ] * 2
    assert find_origin(sources, ["upstreams", "docker-staging", "registry"]) == "known"


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        (TEAM, "accounts.0: expected either 'username' or 'credential_helper'"),
        (TEAM + LOGIN + 'credential_helper = "x"', "accounts.0: expected either 'username' or"),
        (TEAM + LOGIN + TEAM.replace("team/", "other/") + LOGIN, "accounts.1.name: another account is named"),
        (
            TEAM + LOGIN + TEAM.replace('"team"', '"other"').replace("**", "app-?") + LOGIN,
            "accounts.1.repositories: 'team/app-?' matches nothing that an earlier pattern does not match",
        ),
        (TEAM.replace('["team/**"]', "[]") + LOGIN, "accounts.0.repositories: expected at least one"),
        (TEAM.replace("team/**", "team/**:1") + LOGIN, "accounts.0.repositories.0: expected a repository"),
        (TEAM.replace('"team"', '"Team A"') + LOGIN, "accounts.0.name: expected a label"),
        (TEAM + LOGIN + 'password = "s3cret"', "accounts.0.password: there is no such setting; is 'pass"),
        (
            TEAM + LOGIN + "[upstreams.docker]\nwrites = true",
            "writes: cannot be combined with the mirror's own",
        ),
    ],
)
def test_accounts_are_distinct_and_have_a_login(tmp_path: Path, tables: str, problem: str) -> None:
    """The message names the table, by its number; a secret that is written there is not repeated."""
    path = written(tmp_path, f'networks = ["private"]\n{tables}')
    message = refused({"config": path})
    assert f"upstreams.docker.{problem}" in message
    assert "s3cret" not in message
