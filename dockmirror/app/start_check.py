"""All that would prevent a start or a reload, found without starting anything; nothing stays on the disk."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from twisted.internet.protocol import Factory
from twisted.web.iweb import IAgent

from ..config.load import PASSWORD_PREFIX
from ..config.settings import ConfigurationError, Settings, UpstreamSettings, setting_errors
from ..history.database import UnusableHistory, require_local_history
from ..store.store_directory import UnusableDirectory, require_known_format, require_local_disk
from ..system.external_program import run_process
from ..system.posix import explain_unwritable
from ..tls.certificate_directory import CertificateDirectories
from ..upstream.checked_endpoint import threaded_resolver
from ..users import parse_htpasswd
from .accounts import load_accounts, password_variables
from .acme import make_certificate_renewal
from .admission import check_lock_files, load_signers, make_policy_server
from .cache_settings import (
    check_bucket_settings,
    check_cache_group,
    check_without_cache,
    existing_parent,
    has_cache,
)
from .endpoints import Port, bound_addresses, listen_endpoints, operations_endpoint, require_bindable
from .listeners import make_listener, make_listeners
from .operations import load_api_tokens
from .site_builder import load_signing_keys
from .upstream_stack import AgentFor, make_agent, upstream_errors

Check = Callable[[], object]
_TIMEOUT = 2.0
_PASSED_SOCKET = re.compile(r"systemd:domain=(?:INET6?|UNIX):(?:index=\d+|name=[\w.-]+)(?=$|:certificates=)")


def find_start_problems(settings: Settings, environ: Mapping[str, str], reactor: Any) -> list[str]:
    """Return all that would prevent a start with these settings: a line for each, with its key.

    A port that a running mirror has is no problem: it is that of the mirror that is about to be restarted.
    Neither is a socket of systemd, which passes it to the service alone.
    """
    return _run(_start_checks(settings, environ, reactor))


def find_reload_problems(settings: Settings, environ: Mapping[str, str], reactor: Any) -> list[str]:
    """Return all for which a running mirror would reject these settings: a line for each, with its key."""
    return _run(_reload_checks(settings, environ, reactor))


def find_start_losses(settings: Settings) -> list[str]:
    """Return what a mirror with these settings would do without: a line for each, with its key."""
    return [] if settings.history is None else _run([partial(_check_history, settings.history)])


def _run(checks: Iterable[Check]) -> list[str]:
    problems: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except ConfigurationError as error:
            problems.update(dict.fromkeys(error.problems))
    return list(problems)


def _start_checks(settings: Settings, environ: Mapping[str, str], reactor: Any) -> Iterator[Check]:
    yield from _reload_checks(settings, environ, reactor)
    yield partial(_check_cache, settings)
    yield partial(check_bucket_settings, settings)
    yield from _check_endpoints(settings, reactor)
    if settings.operations:
        yield partial(load_api_tokens, settings, _never, set[bytes]())
    if settings.acme is not None:
        yield partial(make_certificate_renewal, settings, lambda: settings, reactor)
        if settings.certificates is not None:
            yield partial(_check_writable, "certificates", settings.certificates)


def _reload_checks(settings: Settings, environ: Mapping[str, str], reactor: Any) -> Iterator[Check]:
    yield partial(_check_variables, settings, environ)
    for name in settings.upstreams:
        yield partial(_check_account, name, settings, environ, reactor)
        yield partial(_check_agent, name, settings, environ, reactor)
    yield partial(_check_users, settings)
    yield partial(_check_keys, settings)
    if settings.access.audit is not None:
        yield partial(_check_audit_log, settings.access.audit)
    yield partial(check_lock_files, settings)
    yield partial(load_signers, settings)
    yield partial(make_policy_server, settings, reactor, _agent_maker(environ, reactor))


def _agent_maker(environ: Mapping[str, str], reactor: Any) -> AgentFor:
    def make(upstream: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        return make_agent(upstream, threaded_resolver(reactor), environ, reached, reactor)

    return make


async def _never(_: Callable[[], bool]) -> bool:
    """Hash no password: there is no client."""
    return False


def _check_variables(settings: Settings, environ: Mapping[str, str]) -> None:
    known = password_variables(settings)
    unknown = sorted(key for key in environ if key.startswith(PASSWORD_PREFIX) and key not in known)
    if unknown:
        raise ConfigurationError(
            *(f"the environment: {key}: there is no such upstream or account" for key in unknown)
        )


def _check_account(name: str, settings: Settings, environ: Mapping[str, str], reactor: Any) -> None:
    alone = settings.model_copy(update={"upstreams": {name: settings.upstreams[name]}})
    known = password_variables(alone)
    own = {
        key: value for key, value in environ.items() if not key.startswith(PASSWORD_PREFIX) or key in known
    }
    load_accounts(alone, own, partial(run_process, reactor), reactor)


def _check_agent(name: str, settings: Settings, environ: Mapping[str, str], reactor: Any) -> None:
    upstream = settings.upstreams[name]
    with upstream_errors(f"upstreams.{name}", upstream):
        _agent_maker(environ, reactor)(upstream, lambda *_: None)


def _check_cache(settings: Settings) -> None:
    if settings.cache is not None and has_cache(settings):
        _check_writable("cache", settings.cache)
        try:
            require_local_disk(settings.cache)
            require_known_format(settings.cache)
        except UnusableDirectory as error:
            raise ConfigurationError(f"cache: {error}") from None
        check_cache_group(settings.cache, settings)
    else:
        check_without_cache(settings)


def _check_writable(key: str, directory: Path) -> None:
    """Try whether files can be created in a directory, which may have to be created itself.

    Permissions alone do not tell: root has them on a read-only disk and in ``/proc``.
    """
    existing = existing_parent(directory)
    if not existing.is_dir():
        raise ConfigurationError(f"{key}: {existing} is not a directory")
    try:
        with TemporaryDirectory(prefix="try-", dir=existing):
            pass
    except OSError as error:
        raise ConfigurationError(f"{key}: {explain_unwritable(existing, error)}") from None


def _check_existing(key: str, directory: Path) -> None:
    if not directory.exists():
        raise ConfigurationError(f"{key}: the directory {directory} does not exist")
    _check_writable(key, directory)


def _check_history(directory: Path) -> None:
    loss = "history: the mirror would keep no history"
    _check_writable(loss, directory)
    try:
        require_local_history(directory)
    except UnusableHistory as error:
        raise ConfigurationError(f"{loss}: {error}") from None


def _check_audit_log(file: Path) -> None:
    if not file.exists():
        _check_existing("access.audit", file.parent)
        return
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise ConfigurationError(f"access.audit: cannot be written: {error.strerror}") from None


def _check_users(settings: Settings) -> None:
    if settings.access.htpasswd is not None:
        with setting_errors("access.htpasswd"):
            parse_htpasswd(settings.access.htpasswd.read_text("utf-8"))


def _check_keys(settings: Settings) -> None:
    keys = settings.access.keys
    accepts_pushes = any(upstream.writes for upstream in settings.upstreams.values())
    if keys is None or not (accepts_pushes or settings.access.htpasswd is not None):
        return
    if keys.exists():
        load_signing_keys(settings)
    else:
        _check_writable("access.keys", keys.parent)


def _check_endpoints(settings: Settings, reactor: Any) -> Iterator[Check]:
    certificates = CertificateDirectories(
        settings.certificates, settings.domain, reactor, filled=settings.acme is not None
    )
    for endpoint in listen_endpoints(settings):
        testable = _PASSED_SOCKET.sub("tcp:0", endpoint)
        yield partial(make_listeners, [testable], Factory(), certificates, reactor)
    if settings.operations:
        operations = operations_endpoint(settings)
        yield partial(make_listener, "operations", operations, Factory(), reactor, certificates)
    yield partial(require_bindable, settings)
    for key, address in bound_addresses(settings):
        setting = key.partition(".")[0]
        if isinstance(address, Path):
            yield partial(_check_existing, setting, address.parent)
        else:
            yield partial(_check_port, setting, address)


def _check_port(key: str, port: Port) -> None:
    try:
        _try_binding(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if not _is_mirror(port):
                raise ConfigurationError(f"{key}: another program has {port}") from None
        elif error.errno == errno.EACCES:
            raise ConfigurationError(
                f"{key}: {port}: permission denied: a port below 1024 needs root or the capability"
                " CAP_NET_BIND_SERVICE"
            ) from None
        else:
            raise ConfigurationError(f"{key}: {port}: {error.strerror}") from None


def _try_binding(port: Port) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        port.interface or "0.0.0.0",  # noqa: S104
        port.number,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)
        trial.listen(1)


def _is_mirror(port: Port) -> bool:
    """Return whether a mirror answers at a port of this machine."""
    # Any certificate will do: nothing secret is sent, and nothing that is received is used.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(
            f"{port.scheme}://{port.local_host}:{port.number}/healthz", timeout=_TIMEOUT
        ) as response:
            return bool(response.read(16) == b"ok")
    except (OSError, HTTPException):
        return False
