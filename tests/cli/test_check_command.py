"""Tests of ``dockmirror check`` without a network."""

from __future__ import annotations

import click
import pytest

from dockmirror.cli.check_command import advise, describe, find_upstreams
from dockmirror.cli.diagnostics import Diagnosis, DiagnosticStep
from dockmirror.config.load import load

from .shop import Shop

SETTINGS = load({"domain": "mirror.example", "upstream": ["inner=http://registry.lan:5000"]}, {})


def test_an_unknown_upstream_is_refused(shop: Shop) -> None:
    refused = shop.run("check", "docker", "nothing", code=2).output
    assert "there is no upstream nothing" in refused
    assert "quay" in refused


@pytest.mark.parametrize(
    ("name", "upstream", "images"),
    [
        ("docker", "docker", []),
        ("docker.io", "docker", []),
        ("Quay.io", "quay", []),
        ("index.docker.io", "docker", []),
        ("https://registry-1.docker.io/", "docker", []),
        ("registry.lan:5000", "inner", []),
        ("ghcr.mirror.example", "ghcr", []),
        ("nginx:1.27", "docker", ["docker.io/library/nginx:1.27"]),
        ("grafana/grafana", "docker", ["docker.io/grafana/grafana:latest"]),
        ("ghcr.io/o/r", "ghcr", ["ghcr.io/o/r:latest"]),
        ("registry.lan:5000/a:1", "inner", ["registry.lan_5000/a:1"]),
    ],
)
def test_names_are_those_that_people_use(name: str, upstream: str, images: list[str]) -> None:
    """An upstream, a registry by any of its names, an address, a virtual host, or an image."""
    found = find_upstreams([name], SETTINGS)
    assert {key: list(map(str, wanted)) for key, wanted in found.items()} == {upstream: images}


@pytest.mark.parametrize(
    ("name", "message"),
    [("dokcer", "is 'docker' meant?"), ("quya.io/o/r", "is 'quay.io' meant?"), ("A:B:C", "A:B:C")],
)
def test_a_misspelt_name_is_refused_with_a_similar_one(name: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        find_upstreams([name], SETTINGS)


def test_the_note_says_what_works_what_does_not_and_what_to_do() -> None:
    well = DiagnosticStep("name", True, "192.0.2.1"), DiagnosticStep("/v2/", True, "it requires nothing")
    ill = DiagnosticStep("name", True, "192.0.2.2"), DiagnosticStep("TLS", False, "an untrusted authority")
    diagnoses = [Diagnosis("a", "http://a", (), well), Diagnosis("b", "https://b", (), ill)]
    assert list(describe(diagnoses)) == [
        "a: http://a",
        "  ✓ name  192.0.2.1",
        "  ✓ /v2/  it requires nothing",
        "  The mirror can pull from it.",
        "",
        "b: https://b",
        "  ✓ name  192.0.2.2",
        "  ✗ TLS   an untrusted authority",
        f"  What to do: {advise(diagnoses[1])}",
        "",
        "1 of 2 addresses work. Not: b (TLS).",
    ]
    assert "'upstreams.b.ca_file'" in str(advise(diagnoses[1]))


def test_an_offline_upstream_is_neither_asked_nor_ill() -> None:
    """The summary counts it for itself."""
    not_asked = Diagnosis("a", "http://a", (), [DiagnosticStep("offline", True, "not asked")], offline=True)
    ill = Diagnosis("b", "https://b", (), [DiagnosticStep("TLS", False, "an untrusted authority")])
    assert not_asked.ok
    assert list(describe([not_asked]))[2] == "  The mirror serves what its cache holds."
    assert list(describe([not_asked, ill]))[-1] == "0 of 1 addresses work. Not: b (TLS). Offline: 1."
    assert list(describe([not_asked, not_asked]))[-1] == "The mirror is offline: no registry is asked."


def test_a_peer_has_a_note_of_its_own() -> None:
    well = Diagnosis("peer", "http://a", (), [DiagnosticStep("/v2/", True, "it answers")], is_peer=True)
    ill = Diagnosis("peer", "http://b", (), [DiagnosticStep("/v2/", False, "denied")], is_peer=True)
    lines = list(describe([well, ill]))
    assert lines[2] == "  The mirror can fetch blobs from it."
    assert lines[-1] == "1 of 2 addresses work. Not: peer (/v2/)."
    assert "http://b" in str(advise(ill))
    assert "'peers'" in str(advise(ill))


@pytest.mark.parametrize("step", ["name", "connection", "TLS", "/v2/", "token", "limit", "image"])
def test_there_is_advice_for_each_step(step: str) -> None:
    advice = advise(Diagnosis("x", "https://x.example", (), [DiagnosticStep(step, False, "it fails")]))
    assert advice is not None
    assert "upstreams.x." in advice or "https://x.example" in advice


def advice_for(url: str, step: str, kind: str = "") -> str:
    return str(advise(Diagnosis("x", url, (), [DiagnosticStep(step, False, "it fails", kind)])))


def test_a_refused_connection_asks_if_the_registry_runs() -> None:
    """A setting for private networks is named only if the address is not allowed."""
    refused = advice_for("http://registry.lan:5000", "connection", "refused")
    assert refused.startswith("Does the registry run, and is the port right in 'upstreams.x.url'")
    assert "allow_networks" not in refused + advice_for("http://registry.lan:5000", "connection")
    assert "allow_networks" in advice_for("https://x.example", "connection", "not allowed")


def test_a_registry_without_tls_is_asked_by_http() -> None:
    advice = advice_for("https://registry.lan:5000", "TLS", "not spoken")
    assert advice.startswith("Is http://registry.lan:5000 meant?")


def test_the_advice_to_ask_a_registry_leaves_out_the_path_of_its_address() -> None:
    diagnosis = Diagnosis("x", "https://x.example/hub", (), [DiagnosticStep("/v2/", False, "it fails")])
    assert "'curl -i https://x.example/v2/'" in str(advise(diagnosis))
