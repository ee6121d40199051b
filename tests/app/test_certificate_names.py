"""Which names are certified, and by whose leave."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from dockmirror.app.certificate_names import issuing, lacking, names
from dockmirror.config.known_registries import KNOWN
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from dockmirror.tls.acme_store import AcmeStore
from dockmirror.tls.certificate_renewal import CertificateRenewal


def test_names() -> None:
    """All by which others than this machine know the mirror, each once."""
    settings = load({"domain": "m.example", "names": ["mirror.lan", "m.example"]}, {})
    assert names(settings) == (
        *("m.example", "mirror.lan"),
        *[f"{known.name}.m.example" for known in KNOWN],
    )


def test_what_is_lacking(tmp_path: Path) -> None:
    """Are the files of the names that have no certificate, where there are to be any."""
    said = {"domain": "m.example", "certificates": str(tmp_path)}
    assert lacking(load(said, {})) == ()
    settings = load({**said, "acme": "a@m.example"}, {})
    assert lacking(settings) == [tmp_path / f"acme/{name}.pem" for name in names(settings)]
    AcmeStore(tmp_path).put("m.example", b"certificate")
    assert lacking(settings) == [tmp_path / f"acme/{name}.pem" for name in names(settings)[1:]]


def test_a_service() -> None:
    """Of these settings."""
    settings = load({"domain": "m.example", "acme": "a@m.example"}, {})
    assert isinstance(issuing(settings, lambda: settings, Clock()), CertificateRenewal)


def test_localhost() -> None:
    """Is certified by nobody, which is told at start."""
    settings = load({"acme": "a@m.example"}, {})
    with pytest.raises(ConfigurationError, match="acme: needs a 'domain' of yours"):
        issuing(settings, lambda: settings, Clock())


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named."""
    monkeypatch.setitem(sys.modules, "dockmirror.tls.acme_client", None)
    settings = load({"domain": "m.example", "acme": "a@m.example"}, {})
    with pytest.raises(ConfigurationError, match=r"pip install 'dockmirror\[acme\]'"):
        issuing(settings, lambda: settings, Clock())
