"""The documents agree with the code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockmirror.app.service import Options
from dockmirror.config.image_rules import (
    BudgetSettings,
    GateSettings,
    PolicySettings,
    RetentionSettings,
    SyncSettings,
)
from dockmirror.config.known_registries import KNOWN
from dockmirror.config.load import PREFIX, load
from dockmirror.config.settings import (
    AccessSettings,
    AccountSettings,
    RedirectSettings,
    Settings,
    UpstreamSettings,
)

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "changelog.d/README.md"])
DOMAIN = "mirror.example.com"
Model = type[
    Settings
    | AccessSettings
    | AccountSettings
    | BudgetSettings
    | GateSettings
    | PolicySettings
    | RedirectSettings
    | RetentionSettings
    | SyncSettings
    | UpstreamSettings
]

NEAR = {"region": "eu", "networks": ["private"], "url": "https://cdn.example"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def text(name: str) -> str:
    """A document."""
    return (ROOT / name).read_text("utf-8")


def table(document: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column has that heading."""
    lines = iter(text(document).splitlines())
    next(line for line in lines if line.startswith(f"| {first} |"))
    next(lines)
    return list(_rows(lines))


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def code(cell: str) -> str:
    """Return the words in backquotes."""
    found = re.search(r"`([^`]*)`", cell)
    return found[1] if found else ""


def test_host_names() -> None:
    """The README's table of hosts is the built-in table, in its order."""
    hosts = {known.name: load({"domain": DOMAIN}, {}).host(known.name) for known in KNOWN}
    assert [(code(host), registry, code(path)) for host, registry, path in table("README.md", "host")] == [
        (hosts[known.name], known.url.removeprefix("https://"), f"{DOMAIN}/{known.registry}/…")
        for known in KNOWN
    ]


def test_registries() -> None:
    """The table of registries has each that is built in, and no other; foreign token services are named."""
    rows = {code(row[0]): row for row in table("docs/reference/registries.md", "name")}
    assert list(rows) == [known.name for known in KNOWN]
    for known in KNOWN:
        assert rows[known.name][1] == known.url.removeprefix("https://")
        for realm in () if known.name == "docker-staging" else known.realms:
            assert realm.removeprefix("https://") in rows[known.name][2]


def test_caddyfile() -> None:
    """Each host has a certificate in the example for Caddy."""
    caddy = text("docs/examples/Caddyfile")
    hosts = re.findall(rf"^([a-z0-9.-]*{DOMAIN})", caddy, re.MULTILINE)
    assert hosts == [DOMAIN, *(f"{known.name}.{DOMAIN}" for known in KNOWN)]


def test_settings() -> None:
    """The operators' table has every key, option and variable, and the right defaults."""
    rows = table("docs/reference/settings.md", "key")
    assert {code(key) for key, *_ in rows} == set(Settings.model_fields) | {"config"}
    options = {f"--{name.removesuffix('=')}" for name in Options().longOpt} - {"--help", "--version"}
    assert {code(option) for _, option, *_ in rows} - {""} == options
    for key, _, variable, default, _ in rows:
        name = "upstream" if code(key) == "upstreams" else code(key)
        assert code(variable) == (
            ""
            if name in ("access", "budget", "gate", "policy", "retention", "sync")
            else f"{PREFIX}{name.upper()}"
        )
        if code(key) not in ("config", "access", "gate", "upstreams"):
            assert is_default(Settings, {}, code(key), default)


def test_access_settings() -> None:
    """The table of who may use it has every key and variable, and the right default."""
    rows = table("docs/reference/settings.md", "key of access")
    assert {code(key) for key, *_ in rows} == set(AccessSettings.model_fields)
    for key, variable, default, _ in rows:
        assert code(variable) == f"{PREFIX}ACCESS_{code(key).upper()}"
        assert is_default(AccessSettings, {}, code(key), default)


@pytest.mark.parametrize(
    ("model", "heading", "required"),
    [
        (PolicySettings, "key of a policy", {"images": "**"}),
        (AccountSettings, "key of an account", {"name": "team", "repositories": ["team/*"]}),
        (BudgetSettings, "key of a budget", {"images": "**"}),
        (RedirectSettings, "key of a redirect", NEAR),
        (RetentionSettings, "key of a retention rule", {"images": "**"}),
        (SyncSettings, "key of a sync rule", {"upstream": "docker", "repositories": ["library/nginx"]}),
        (GateSettings, "key of the gate", {}),
        (UpstreamSettings, "key of an upstream", {"url": "https://a.example"}),
    ],
)
def test_settings_of_a_table(model: Model, heading: str, required: dict[str, Any]) -> None:
    """The documented table has every key and the right default."""
    rows = table("docs/reference/settings.md", heading)
    assert {code(key) for key, *_ in rows} == {
        field.alias or name for name, field in model.model_fields.items()
    }
    for key, default, _ in rows:
        if code(key) not in required:
            assert is_default(model, required, code(key), default)


def is_default(
    model: Model,
    given: dict[str, Any],
    key: str,
    cell: str,
) -> bool:
    """Return True if the cell has the default of a setting."""
    if cell == "none":
        return model.model_fields[key].default is None
    value = tomllib.loads(f"value = {code(cell)}")["value"]
    plain, told = model.model_validate(given), model.model_validate({**given, key: value})
    return bool(getattr(plain, key) == getattr(told, key))


def test_example_settings(tmp_path: Path) -> None:
    """The example shows a company's server: TLS, access, cache, an account, and two private upstreams."""
    example = text("docs/examples/dockmirror.toml")
    for path in ("/run/credentials/dockmirror.service/docker-password", "/etc/dockmirror/company-ca.pem"):
        assert path in example
        example = example.replace(path, str(tmp_path / "file"))
    (tmp_path / "file").write_text("secret\n")
    file = tmp_path / "dockmirror.toml"
    file.write_text(example)
    settings = load({"config": file}, {})
    assert settings.host("ghcr") == f"ghcr.{DOMAIN}"
    sockets = re.findall(r"^ListenStream=(\d+)$", text("docs/examples/dockmirror.socket"), re.MULTILINE)
    assert sockets == ["80", "443"]
    assert [each.startswith("https:") for each in settings.listen] == [False, True]
    assert settings.certificates
    assert settings.access.requests
    assert settings.cache_size
    assert settings.upstreams["docker"].username
    assert settings.upstreams["docker"].realms == ("https://auth.docker.io",)
    private = {name for name, each in settings.upstreams.items() if each.allow_networks}
    assert private == set(settings.upstreams) - {known.name for known in KNOWN}
    assert len(private) == 2


def test_unit() -> None:
    """The service is stopped no sooner than running transfers may take, and leaves no pid file."""
    unit = text("docs/examples/dockmirror.service")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > Settings().grace
    assert "/dockmirror serve --config " in unit


@each_document
def test_links(document: Path) -> None:
    """Links to files and to headings lead somewhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        path, _, heading = target.partition("#")
        if path.startswith("https://"):
            continue
        linked = document.parent / path if path else document
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


def anchors(document: Path) -> set[str]:
    """The names by which a document's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_commands(document: Path) -> None:
    """Targets of make exist, and no command leaves a pid file to trip over."""
    lines = document.read_text("utf-8").splitlines()
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    for line in lines:
        assert set(re.findall(r"(?:`|^\$ )make ([a-z]+)", line)) <= targets, line
        assert not re.search(r"twistd -n", line) or "--pidfile=" in line, line


def test_variables_of_the_compose_file() -> None:
    """The page on containers names all of them."""
    variables = set(re.findall(r"\$\{(\w+)", text("compose.yaml")))
    assert variables == {"DOCKMIRROR_ADDRESS", "DOCKMIRROR_PORT", "DOCKMIRROR_DOMAIN", "DOCKMIRROR_IMAGE"}
    assert [each for each in variables if f"`{each}" not in text("docs/how-to/install.md")] == []
