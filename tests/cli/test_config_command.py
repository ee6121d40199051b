"""Tests of ``dockmirror config``."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dockmirror.cli.main import run
from dockmirror.config.load import load
from dockmirror.config.settings import Settings, UpstreamSettings

from ..integration.parts.process import CLEAN_ENVIRONMENT, interpreter
from ..issued import issue
from .shop import run as run_command

POLICIES = """
[[policy]]
images = "docker.io/**"
min_age = "7d"
exceptions = [{{image = "docker.io/library/a", until = 2030-01-31, reason = 'a "b"'}}]

[[policy]]
images = "quay.io/**"
mode = "warn"
signed_by = ["{key}", {{issuer = "https://a.example", subject = "*@a.example"}}]
platforms = ["linux/amd64"]
max_size = "1GB"
hook = true
"""
FILE = """
domain = "a.example"
min_free = "10%"
cache_size = "5GB"

[upstreams.docker]
proxy = "socks5h://name:s3cret@proxy:1080"
timeout = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of settings."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(FILE)
    return path


def rows(*arguments: str, **environ: str) -> dict[str, Any]:
    """Return the printed settings by key."""
    listed = json.loads(run_command(*arguments, "--json", environ=environ).output)
    return {row["key"]: (row["value"], row["source"]) for row in listed}


def test_each_value_has_its_source(file: Path) -> None:
    shown = rows("-c", str(file), "config", DOCKMIRROR_GRACE="7")
    assert shown["domain"] == ("a.example", str(file))
    assert shown["grace"] == (7, "the environment")
    assert shown["hosts"] == ("{name}.{domain}", "default")
    assert shown["upstreams.docker.timeout"] == (5, str(file))
    assert rows("config", "upstreams.docker")["upstreams.docker.registry"] == ("docker.io", "known")
    assert (shown["min_free"][0], shown["cache_size"][0]) == ("10%", "5000000000B")


def test_printed_values_are_valid_settings(file: Path) -> None:
    shown = rows("-c", str(file), "config", "--all")
    again = load({"min_free": shown["min_free"][0], "cache_size": shown["cache_size"][0]}, {})
    before = load({"config": file}, {})
    assert (again.min_free, again.cache_size) == (before.min_free, before.cache_size)
    assert shown["upstreams.docker.segments"] == ("auto", "default")
    assert shown["access.connections_per_network"] == ("50%", "default")


def test_policies_are_printed_as_a_settings_file_has_them(tmp_path: Path) -> None:
    """In JSON as objects; each with the keys that its operator has written."""
    (tmp_path / "cosign.pub").touch()
    path = tmp_path / "dockmirror.toml"
    path.write_text(POLICIES.format(key=tmp_path / "cosign.pub"))
    line = next(
        each for each in run_command("-c", str(path), "config").output.splitlines() if "policy" in each
    )
    printed = line.split("  ")[1:]
    value = next(each for each in printed if each).strip()
    again = load(tomllib.loads(f"policy = {value}"), {})
    assert again.policy == load({"config": path}, {}).policy
    assert "on_error" not in value
    first = rows("-c", str(path), "config")["policy"][0][0]
    assert first["exceptions"] == [{"image": "docker.io/library/a", "until": "2030-01-31", "reason": 'a "b"'}]


def test_no_password_is_printed(file: Path) -> None:
    for form in ("--json", "--all"):
        output = run_command("-c", str(file), "config", form).output
        assert "s3cret" not in output
        assert "socks5h://name:" in output


def test_accounts_are_shown_without_their_passwords(tmp_path: Path) -> None:
    """As a list of tables, with the paths of the passwords' files."""
    secret, path = tmp_path / "secret", tmp_path / "dockmirror.toml"
    secret.write_text("s3cret\n")
    account = {"name": "team", "repositories": ["team/*"], "username": "robot", "password_file": str(secret)}
    fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in account.items())
    path.write_text(f'networks = ["private"]\n[upstreams.ghcr]\naccounts = [{{{fields}}}]\n')
    assert rows("-c", str(path), "config")["upstreams.ghcr.accounts"][0] == [account]
    assert "s3cret" not in run_command("-c", str(path), "config").output


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://name:s3@cr3t@proxy:3128", "http://name:…@proxy:3128"),
        ("http://name:@s3cr3t@@proxy", "http://name:…@proxy"),
        ("na@me:s3@cr3t@proxy:3128", "na@me:…@proxy:3128"),
        ("socks5h://name:s3:cr@3t@[fd00::1]:1080", "socks5h://name:…@[fd00::1]:1080"),
        ("http://name:s3/c@r3t@proxy", "http://name:…@proxy"),
        ("http://proxy:3128", "http://proxy:3128"),
        ("", ""),
    ],
)
def test_a_proxy_password_is_masked_to_its_last_character(proxy: str, shown: str, tmp_path: Path) -> None:
    """The password may have any characters, even in an invalid address."""
    path = tmp_path / "dockmirror.toml"
    path.write_text(f"[upstreams.docker]\nproxy = {json.dumps(proxy)}\n")
    assert rows("-c", str(path), "config")["upstreams.docker.proxy"][0] == shown


def test_all_and_a_prefix_select_settings(file: Path) -> None:
    """``--all`` prints every setting, a prefix those that begin with it."""
    every = rows("config", "--all")
    assert set(Settings.model_fields) - {"upstreams", "access", "gate"} <= set(every)
    assert {
        f"upstreams.quay.{field.alias or key}" for key, field in UpstreamSettings.model_fields.items()
    } <= set(every)
    assert not any(key.startswith("upstreams.quay") for key in rows("config"))
    assert set(rows("config", "upstreams.quay.ti")) == {"upstreams.quay.timeout"}
    assert set(rows("config", "upstreams.quay.url")) == {"upstreams.quay.url"}


def test_an_unknown_prefix_is_refused() -> None:
    assert "no setting that begins with 'chache'" in run_command("config", "chache", code=2).output


def test_a_wide_table_is_folded_and_not_cut(file: Path) -> None:
    """Each setting has one line if the terminal is wide enough."""
    width = {"COLUMNS": str(200 + len(str(file)))}
    wide = run_command("-c", str(file), "config", environ=width).output.splitlines()
    assert wide[0].split() == ["key", "value", "from"]
    assert [line.split() for line in wide if line.startswith("domain")] == [
        ["domain", '"a.example"', str(file)]
    ]
    narrow = run_command("-c", str(file), "config", environ={"COLUMNS": "40"}).output
    assert "\N{HORIZONTAL ELLIPSIS}" not in narrow.replace(":\N{HORIZONTAL ELLIPSIS}", "")


def test_invalid_settings_are_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["dockmirror", "-c", "/nowhere.toml", "config"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "dockmirror: /nowhere.toml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("m.example", "*.m.example"), ""),
        (("m.example",), "docker.m.example and 12 others"),
        (("other.example",), "m.example and 13 others"),
    ],
)
def test_hosts_without_a_certificate_are_questioned(
    tmp_path: Path, names: tuple[str, ...], missing: str
) -> None:
    issued = issue(*names)
    (tmp_path / "both.pem").write_bytes(issued.certificate + issued.key)
    file = tmp_path / "dockmirror.toml"
    file.write_text(
        f'domain = "m.example"\nlisten = ["https:0"]\noperations = ""\nhistory = false\n'
        f'certificates = "{tmp_path}"\ncache = "{tmp_path / "cache"}"\n'
    )
    program = str(Path(sys.executable).with_name("dockmirror"))
    command = [program, "-c", str(file), "config", "--check", "--json"]
    ended = interpreter().run(command, CLEAN_ENVIRONMENT)
    asked = [each for each in json.loads(ended.stdout)["questions"] if each.startswith("certificates")]
    words = f"certificates: none is for {missing}; clients refuse another one's"
    assert asked == ([words] if missing else [])
