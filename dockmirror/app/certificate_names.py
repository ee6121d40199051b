"""Certificates for all names of the mirror, of these settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service

from ..config.settings import ConfigurationError, Settings
from ..system.daemon_thread import run_in_daemon_thread
from ..tls.acme_store import AcmeStore
from ..tls.certificate_renewal import CertificateRenewal


def names(settings: Settings) -> tuple[str, ...]:
    """Every host name that others than this machine may know the mirror by."""
    virtual = [settings.host(name) for name in settings.upstreams]
    return tuple(dict.fromkeys([settings.domain, *settings.names, *virtual]))


def lacking(settings: Settings) -> Sequence[Path]:
    """Where the certificates are to be that an authority has not given yet, or not to us."""
    if settings.acme is None or settings.certificates is None:
        return ()
    kept = AcmeStore(settings.certificates)
    return [kept.path(name) for name in names(settings) if not kept.path(name).exists()]


def issuing(settings: Settings, in_force: Callable[[], Settings], reactor: Any) -> Service:
    """What has an authority give them, one process for all.

    :param in_force: gives the settings by whose names it goes, now and later.
    :raises ConfigurationError: where what it needs is not installed, or there is no name to certify.
    """
    try:
        from ..tls.acme_client import AcmeClient
    except ImportError:
        raise ConfigurationError("acme: needs the extra 'acme': pip install 'dockmirror[acme]'") from None
    if settings.domain == "localhost":
        raise ConfigurationError("acme: needs a 'domain' of yours: nobody certifies localhost")
    assert settings.acme is not None
    assert settings.certificates is not None
    kept = AcmeStore(settings.certificates)
    authority = AcmeClient(settings.acme_directory, settings.acme, settings.acme_ca_file, kept)
    return CertificateRenewal(
        lambda: names(in_force()),
        kept.due,
        lambda name: run_in_daemon_thread(reactor, partial(authority.issue, name)),
        reactor,
    )
