"""The mirror's own log: one line for each message, and five lines at start that say what it does."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from attrs import frozen
from twisted.application.service import Service
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from zope.interface import implementer

from ..config.known_registries import KNOWN
from ..config.notation import format_size
from ..config.settings import Settings
from ..store.eviction.store_budget import Budget, read_store_usage
from ..system.networks import is_within, parse_address, parse_networks
from ..system.posix import is_output_discarded, write_line
from ..system.reactor_services import WhenServing
from ..system.request_context import current_pull
from ..system.times import format_timestamp
from .cache_settings import has_cache, make_budget
from .endpoints import Port, listen_endpoints, listening_ports, operations_endpoint, parse_port

_OWN = "dockmirror."
_LEVELS = {LogLevel.warn: "warning", LogLevel.error: "error", LogLevel.critical: "error"}
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_NAMED = 3
"""Registries that are named; the others are counted."""
_KNOWN_NAMES = frozenset(each.name for each in KNOWN)
"""The upstreams of every mirror; the operator's own are named first."""
_PRIVATE = "private"
_LEAST_FREE = 20 * 10**6
"""Bytes below which no space is left for images."""
_log = Logger()


@implementer(ILogObserver)
class MessageLog:
    """Writes the mirror's messages, and the warnings and errors of its libraries.

    What Twisted says about its factories and ports is left out.  A message that belongs to a pull bears the
    pull's number, as the lines of the access log do.

    :param write: writes a line, given without its line break.
    :ivar form: that of the lines, which the settings say.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.form: Literal["text", "json"] = "text"
        self._write = write

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        is_own = str(event.get("log_namespace", "")).startswith(_OWN)
        if level < LogLevel.info or not (is_own or level > LogLevel.info):
            return
        text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
        time, name = format_timestamp(event["log_time"]), _LEVELS.get(level, "info")
        pull = event.get("pull") or current_pull.get() or None
        if self.form == "json":
            fields = {"kind": "message", "time": time, "level": name, "message": text.rstrip(), "pull": pull}
            self._write(json.dumps(fields))
        else:
            kind = "" if name == "info" else f"{name}: "
            about = f"pull {pull}: " if pull else ""
            self._write(f"{time} {kind}{about}{text.rstrip()}")


def print_line(line: str) -> None:
    """Print to the real standard output: twistd's replacement adds a prefix to each line.

    In the background, twistd has only the replacement, which writes to its log.

    :raises OSError: when nobody reads it.
    """
    stream = sys.stdout if is_output_discarded() else sys.__stdout__
    if stream is not None:
        write_line(stream, line)


def make_message_log() -> MessageLog:
    """Return the log on standard output; its lines are lost while nobody reads that."""

    def write(line: str) -> None:
        with suppress(OSError):
            print_line(line)

    return MessageLog(write)


@frozen
class CacheFacts:
    """The state of the cache's directory at start.

    :ivar held: the bytes that it holds; None if they were never counted.
    :ivar free: the bytes that are free on its file system.
    :ivar lacks_inodes: fewer inodes are free than have to stay free.
    """

    held: int | None
    free: int
    budget: Budget
    lacks_inodes: bool = False


def read_cache_facts(settings: Settings) -> CacheFacts | None:
    """Return the state of the cache, or None without a cache."""
    if settings.cache is None or not has_cache(settings):
        return None
    status, usage = os.statvfs(settings.cache), read_store_usage(settings.cache)
    budget = make_budget(settings.cache, settings)
    lacks_inodes = budget.shortfall(0, status).inodes > 0
    return CacheFacts(usage.size if usage else None, status.f_bavail * status.f_frsize, budget, lacks_inodes)


def find_client(find_program: Callable[[str], str | None], is_container: bool) -> str:
    """Return the program to try the mirror with: one that is there, as far as that can be seen from here."""
    if is_container or find_program("docker"):
        return "docker"
    return "podman" if find_program("podman") else "curl"


def describe_start(settings: Settings, cache: CacheFacts | None, client: str) -> list[str]:
    """Return the lines that are logged at start.

    :param client: the program of the command to try: docker, podman or curl.
    """
    return [
        _describe_addresses(settings),
        _describe_clients(settings),
        _describe_cache(settings, cache),
        _describe_upstreams(settings),
        f"try: {_command_to_try(settings, client)}",
    ]


def _describe_addresses(settings: Settings) -> str:
    ports = list(listening_ports(settings))
    if ports:
        page = f"page: {_url(ports[0], settings)}/"
        if settings.domain != "localhost" and ports[0].is_on_all_addresses and ports[0].scheme == "http":
            page += f" (from other machines http://{ports[0].netloc(settings.domain)}/)"
    else:
        page = f"page: on {', '.join(listen_endpoints(settings))}"
    endpoint = operations_endpoint(settings)
    port = parse_port(endpoint)
    status = f"{_url(port, settings)}/status" if port else endpoint and f"on {endpoint}"
    return f"{page}, status: {status or 'off'}"


def _describe_clients(settings: Settings) -> str:
    if "public" in settings.networks:
        networks = "every address"
    else:
        named = ["private networks" if each == _PRIVATE else each for each in settings.networks]
        networks = f"{', '.join(named)} only" if named else "none"
    users = ", with a username and a password" if settings.access.htpasswd else ""
    return f"clients: {networks}{users} (the setting 'networks')"


def _describe_cache(settings: Settings, cache: CacheFacts | None) -> str:
    if cache is None:
        return "cache: off, since cache_size is 0; the mirror only relays"
    budget, bucket = cache.budget, f", with {settings.store} behind it" if settings.store else ""
    free = f"{format_size(cache.free)} free on the disk"
    if cache.free < budget.free_bytes:
        return (
            f"cache: {settings.cache} keeps nothing new: {free}, and {format_size(budget.free_bytes)} have to"
            f" stay free (the setting 'min_free'); free some space{_suggest_min_free(cache.free)}"
        )
    if cache.lacks_inodes:
        return f"cache: {settings.cache} keeps nothing new: too few inodes are free on its file system"
    held = "" if cache.held is None else f"holds {format_size(cache.held)} of "
    return f"cache: {settings.cache}, {held}at most {format_size(budget.size)}, {free}{bucket}"


def _suggest_min_free(free: int) -> str:
    """Return a value that leaves the cache at least half of the free space, if that is worth it."""
    if free < _LEAST_FREE:
        return ""
    value = "1GB" if free >= 2 * 10**9 else f"{free // (2 * 10**6)}MB"
    return f", or start with --min-free {value}"


def _describe_upstreams(settings: Settings) -> str:
    upstreams = sorted(settings.upstreams, key=lambda name: name in _KNOWN_NAMES)
    names = list(dict.fromkeys(settings.upstreams[name].canonical for name in upstreams))
    return f"upstreams: {_name_some(names)}{_describe_offline(settings)}"


def _describe_offline(settings: Settings) -> str:
    if settings.offline:
        return "; offline: no registry is asked, and clients get what the cache holds (the setting 'offline')"
    offline = [each.canonical for each in settings.upstreams.values() if each.offline]
    return f"; offline: {_name_some(list(dict.fromkeys(offline)))}" if offline else ""


def _name_some(names: Sequence[str]) -> str:
    others = len(names) - _NAMED
    return f"{', '.join(names[:_NAMED])}{f' and {others} others' if others > 0 else ''}"


def _command_to_try(settings: Settings, client: str) -> str:
    """Return a command that works on this machine as it stands."""
    port = _port_to_try(list(listening_ports(settings)))
    if port is None:
        sockets = [each.split(":")[1] for each in listen_endpoints(settings) if each.startswith("unix:")]
        option = f"--unix-socket {sockets[0]} " if sockets else ""
        return f"curl {option}http://{settings.domain}/"
    url = _url(port, settings)
    is_plain_for_docker = port.is_on_all_addresses or port.interface.startswith("127.")
    if not is_within(parse_address(port.local_address), parse_networks(settings.networks)):
        return f"curl {url}/healthz"
    host = url.partition("://")[2]
    image = f"{host}/docker.io/library/busybox"
    if settings.access.htpasswd is not None:
        return f"docker login {host}" if client == "docker" else f"curl {url}/healthz"
    if client == "docker" and (port.scheme == "https" or is_plain_for_docker):
        return f"docker pull {image}"
    if client == "podman":
        option = "--tls-verify=false " if port.scheme == "http" else ""
        return f"podman pull {option}{image}"
    return f"curl {url}/"


def _port_to_try(ports: Sequence[Port]) -> Port | None:
    """Return the port that needs no name and no certificate if there is one."""
    return next((each for each in ports if each.scheme == "http"), ports[0] if ports else None)


def _url(port: Port, settings: Settings) -> str:
    """Return the address of a port on this machine; a certificate needs the domain."""
    host = settings.domain if port.scheme == "https" else port.local_host
    return f"{port.scheme}://{port.netloc(host)}"


class StartMessage(Service):
    """Logs the lines of the start once the mirror serves."""

    def __init__(self, settings: Settings, when_serving: WhenServing) -> None:
        self._settings = settings
        self._when_serving = when_serving

    def startService(self) -> None:
        super().startService()
        self._when_serving(self._log_lines)

    def _log_lines(self) -> None:
        client = find_client(shutil.which, any(mark.exists() for mark in _CONTAINER_MARKS))
        for line in describe_start(self._settings, read_cache_facts(self._settings), client):
            _log.info("{line}", line=line)
