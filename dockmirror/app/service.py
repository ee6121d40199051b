"""The service: the only place that decides on processes, and, with ``worker``, that knows the reactor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pwd import getpwuid
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import Resource

from ..config.options import Options as Options
from ..config.settings import ConfigurationError, Settings
from ..http.server import HttpSite
from ..system.graceful_shutdown import GracefulShutdown
from ..system.ownership import make_directory_for
from ..tls.certificate_directories import CertificateDirectories
from ..web.operations_endpoint import OperationsResource, WorkerTelemetry
from ..web.shared_tables import SharedTables, create_shared_memory
from ..web.status.overview import StatusOverview
from ..workers.rpc_channel import RpcError
from ..workers.sockets import BindOnlyReactor
from ..workers.worker_pool import WorkerPool
from .certificate_names import issuing
from .listeners import everywhere, listener
from .pool_telemetry import PoolTelemetry
from .process import ServingProcess
from .public_url import operations_names
from .services import OrderedMultiService
from .settings_reload import SettingsReload

MOST_WORKERS = 4
"""By default; a mirror of that many saturates most lines."""
RELOAD = 120.0
"""Seconds that a worker has to put new settings into force, or to refuse them: it may be busy."""


def makeService(options: Options) -> IService:
    """The service of these options; called by twistd, which has no better way to say what is wrong by now."""
    try:
        _make_places(options)
        return mirror(options.read, options.environ)
    except ConfigurationError as error:
        raise SystemExit(f"dockmirror: {error}") from None


def _make_places(options: Options) -> None:
    """Where twistd is told to give up the rights of root, by then all must be another user's."""
    told: Mapping[str, Any] = options.parent or {}
    uid, settings = told.get("uid"), options.read()
    if uid is None:
        return
    gid = told.get("gid")
    places = {"cache": settings.cache}
    if settings.access.htpasswd is not None and settings.access.keys is not None:
        places["access.keys"] = settings.access.keys.parent
    if settings.acme is not None:
        places["certificates"] = settings.certificates
    for key, place in places.items():
        try:
            if place is not None:
                make_directory_for(place, uid, getpwuid(uid).pw_gid if gid is None else gid)
        except OSError as error:
            raise ConfigurationError(f"{key}: {place} cannot be made: {error.strerror}") from None


def mirror(read: Callable[[], Settings], environ: Mapping[str, str]) -> MultiService:
    """Everything, ready to be started.

    :param read: gives the settings, now and again at each SIGHUP.
    :param environ: in which proxies may be named and passwords given, and in which credential helpers run.
    :raises ConfigurationError: when the settings are wrong, or cannot be put into practice.
    """
    from twisted.internet import reactor

    settings = read()
    workers = settings.workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    if workers == 1:
        return _alone(settings, read, environ, reactor)
    return _together(workers, settings, read, environ, reactor)


def _alone(
    settings: Settings, read: Callable[[], Settings], environ: Mapping[str, str], reactor: Any
) -> MultiService:
    memory = SharedTables.alone()
    process = ServingProcess(settings, environ, reactor, memory)
    return _assembled(
        settings,
        process.told,
        memory,
        [process.service, *_listeners(settings, process.site, process.certificates, reactor)],
        SettingsReload(settings, read, process.serve, reactor),
        process.certificates,
        reactor,
    )


def _together(
    workers: int,
    settings: Settings,
    read: Callable[[], Settings],
    environ: Mapping[str, str],
    reactor: Any,
) -> MultiService:
    """This process binds, and serves nobody itself."""
    # So that what cannot be put into practice is told of now:
    tried = ServingProcess(settings, environ, reactor, SharedTables.alone())
    holding = BindOnlyReactor(reactor)
    memory = create_shared_memory()
    in_force = settings

    def begin() -> tuple[str, Any]:
        return "begin", {"settings": in_force.as_json(), "share": workers}

    async def serve(new: Settings) -> None:
        nonlocal in_force
        before, in_force = in_force, new  # by which one begins that is started meanwhile
        try:
            await group.ask("serve", new.as_json(), RELOAD)
        except RpcError as error:
            in_force = before
            raise ConfigurationError(str(error)) from None
        tried.certificates.prefer(new.domain)

    group = WorkerPool(
        workers,
        "dockmirror.app.worker",
        memory,
        lambda: holding.sockets,
        begin,
        settings.grace + 5,
        environ,
        reactor,
    )
    return _assembled(
        settings,
        PoolTelemetry(group),
        SharedTables.of(memory),
        [group, *_listeners(settings, HttpSite(Resource(), reactor), tried.certificates, holding)],
        SettingsReload(settings, read, serve, reactor),
        tried.certificates,
        reactor,
    )


def _assembled(
    settings: Settings,
    operated: WorkerTelemetry,
    memory: SharedTables,
    serving: list[Service],
    reloading: SettingsReload,
    certificates: CertificateDirectories,
    reactor: Any,
) -> MultiService:
    """The operators' endpoint tells until all has ended; what was added last stops first."""
    service = OrderedMultiService()
    if settings.operations:
        overview = StatusOverview(operated, memory, reactor)
        told = HttpSite(
            OperationsResource(operated, overview, lambda: operations_names(reloading.settings)),
            reactor,
        )
        listener("operations", settings.operations, told, reactor, certificates).setServiceParent(service)
    filling = [issuing(settings, lambda: reloading.settings, reactor)] if settings.acme else []
    for each in (*serving, *filling, reloading, GracefulShutdown(reactor)):
        each.setServiceParent(service)
    return service


def _listeners(
    settings: Settings, site: IProtocolFactory, certificates: CertificateDirectories, reactor: Any
) -> list[Service]:
    return [
        listener(f"listen.{number}", endpoint, site, reactor, certificates)
        for number, endpoint in enumerate(settings.listen or (everywhere(),))
    ]
