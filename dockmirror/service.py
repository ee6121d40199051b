"""The service: the only place that decides on processes, and, with ``worker``, that knows the reactor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pwd import getpwuid
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import Resource

from .assembly.certified import issuing
from .assembly.listeners import everywhere, listener
from .assembly.process import Process
from .assembly.reached import operations_names
from .assembly.reloading import Reloading
from .assembly.services import InOrder
from .assembly.together import Together
from .certificates.directories import Directories
from .config.options import Options as Options
from .config.settings import ConfigurationError, Settings
from .system.ending import Ending
from .system.owner import make_for
from .web.memory import Memory, shared
from .web.operations import Operated, Operations
from .web.status.overview import Overview
from .web.wire import Site
from .workers.group import Group
from .workers.line import Refused
from .workers.sockets import Holding

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
                make_for(place, uid, getpwuid(uid).pw_gid if gid is None else gid)
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
    memory = Memory.alone()
    process = Process(settings, environ, reactor, memory)
    return _assembled(
        settings,
        process.told,
        memory,
        [process.service, *_listeners(settings, process.site, process.certificates, reactor)],
        Reloading(settings, read, process.serve, reactor),
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
    tried = Process(settings, environ, reactor, Memory.alone())
    holding = Holding(reactor)
    memory = shared()
    in_force = settings

    def begin() -> tuple[str, Any]:
        return "begin", {"settings": in_force.as_json(), "share": workers}

    async def serve(new: Settings) -> None:
        nonlocal in_force
        before, in_force = in_force, new  # by which one begins that is started meanwhile
        try:
            await group.ask("serve", new.as_json(), RELOAD)
        except Refused as error:
            in_force = before
            raise ConfigurationError(str(error)) from None
        tried.certificates.prefer(new.domain)

    group = Group(
        workers,
        "dockmirror.worker",
        memory,
        lambda: holding.sockets,
        begin,
        settings.grace + 5,
        environ,
        reactor,
    )
    return _assembled(
        settings,
        Together(group),
        Memory.of(memory),
        [group, *_listeners(settings, Site(Resource(), reactor), tried.certificates, holding)],
        Reloading(settings, read, serve, reactor),
        tried.certificates,
        reactor,
    )


def _assembled(
    settings: Settings,
    operated: Operated,
    memory: Memory,
    serving: list[Service],
    reloading: Reloading,
    certificates: Directories,
    reactor: Any,
) -> MultiService:
    """The operators' endpoint tells until all has ended; what was added last stops first."""
    service = InOrder()
    if settings.operations:
        overview = Overview(operated, memory, reactor)
        told = Site(
            Operations(operated, overview, lambda: operations_names(reloading.settings)),
            reactor,
        )
        listener("operations", settings.operations, told, reactor, certificates).setServiceParent(service)
    filling = [issuing(settings, lambda: reloading.settings, reactor)] if settings.acme else []
    for each in (*serving, *filling, reloading, Ending(reactor)):
        each.setServiceParent(service)
    return service


def _listeners(
    settings: Settings, site: IProtocolFactory, certificates: Directories, reactor: Any
) -> list[Service]:
    return [
        listener(f"listen.{number}", endpoint, site, reactor, certificates)
        for number, endpoint in enumerate(settings.listen or (everywhere(),))
    ]
