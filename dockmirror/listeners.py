"""Where the mirror listens."""

from __future__ import annotations

import socket
from typing import Any

from twisted.application import strports
from twisted.application.service import IService, Service
from twisted.internet.interfaces import IProtocolFactory

from .settings import ConfigurationError


def listener(key: str, endpoint: str, site: IProtocolFactory, reactor: Any) -> Service:
    """The service that listens there, named after the setting.

    :raises ConfigurationError: when it is no endpoint.
    """
    try:
        service: Any = IService(strports.service(endpoint, site, reactor=reactor))
    except (ValueError, TypeError, OSError) as error:
        setting = key.partition(".")[0]
        raise ConfigurationError(
            f"{setting}: expected a server endpoint, not {endpoint!r}: {error}"
        ) from error
    service.setName(key)
    listening: Service = service
    return listening


def everywhere() -> str:
    """One dual-stack socket where the machine has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "tcp:8080"
    return "tcp:8080:interface=\\:\\:"
