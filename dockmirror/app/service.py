"""The mirror as a Twisted service: how many processes serve, reloading, and shutdown.

Only this module and ``worker`` import the reactor.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pwd import getpwuid
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from ..config.consistency import question_settings
from ..config.load import pack
from ..config.options import Options as Options
from ..config.settings import ConfigurationError, Settings, list_changes
from ..http.server import HttpSite
from ..system.posix import make_directory_for
from ..system.reactor_services import ClockStepGuard, GracefulShutdown, SystemdNotice, WhenServing
from ..tls.certificate_directory import CertificateDirectories
from ..web.shared_tables import SharedTables, create_shared_memory
from ..workers.worker_pool import WorkerPool
from ..workers.worker_program import (
    BindOnlyReactor,
    ForkedWorkers,
    ReclaimingReactor,
    RpcError,
    SpawnedWorkers,
    WorkerProgram,
    pass_on_output,
)
from .cache_settings import disk_size, has_cache
from .endpoints import listen_endpoints, operations_endpoint, require_bindable
from .listeners import make_listener, make_listeners
from .message_log import MessageLog, StartMessage, make_message_log
from .operations import make_operations_site
from .process import OrderedMultiService, ServingProcess
from .telemetry import PoolTelemetry

if TYPE_CHECKING:
    from ..web.operations_endpoint import WorkerTelemetry

MAX_DEFAULT_WORKERS = 4
"""Workers by default, if there are as many cores; four saturate most network links."""
STOP_NOW_LIMIT = 5.0
"""Seconds after a second signal until the process exits, whatever it waits for."""
START_ONLY = (
    "listen", "certificates", "acme", "acme_directory", "acme_ca_file", "operations", "api_tokens_file",
    "workers", "grace", "accel", "cache", "cache_group", "store", "store_endpoint", "store_days", "redirect",
    "history", "history_days", "history_size", "history_addresses",
)  # fmt: skip
"""The settings that take effect only when the mirror starts."""

_log = Logger()


def makeService(options: Options) -> IService:
    """Make the service of ``twistd dockmirror``; errors in the settings end twistd with one line."""
    try:
        _make_directories(options)
        return make_mirror(options.read, options.environ)
    except ConfigurationError as error:
        raise SystemExit(f"dockmirror: {error}") from None


def _make_directories(options: Options) -> None:
    """Create the directories that must belong to the user which twistd will switch to."""
    twistd: Mapping[str, Any] = options.parent or {}
    uid = twistd.get("uid")
    if uid is None:
        return
    settings = options.read()
    gid = twistd.get("gid")
    directories = {"cache": settings.cache, "history": settings.history}
    if settings.access.htpasswd is not None and settings.access.keys is not None:
        directories["access.keys"] = settings.access.keys.parent
    if settings.acme is not None:
        directories["certificates"] = settings.certificates
    for key, directory in directories.items():
        try:
            if directory is not None:
                make_directory_for(directory, uid, getpwuid(uid).pw_gid if gid is None else gid)
        except OSError as error:
            raise ConfigurationError(f"{key}: cannot create {directory}: {error.strerror}") from None


@frozen
class _Server:
    """The serving part of the mirror, in this process or in workers.

    :ivar services: the processes and the listeners, in the order in which they start.
    :ivar apply: puts new settings into force.
    :ivar count_transfers: returns the number of requests without a complete response.
    :ivar abort: cuts off the transfers that a shutdown waits for.
    """

    when_serving: WhenServing
    telemetry: WorkerTelemetry
    memory: SharedTables
    certificates: CertificateDirectories
    services: Sequence[Service]
    apply: Callable[[Settings], Coroutine[Any, Any, None]]
    count_transfers: Callable[[], Coroutine[Any, Any, int]]
    abort: Callable[[], None]


def run_mirror(read: Callable[[], Settings], environ: Mapping[str, str]) -> None:
    """Run the mirror in the foreground with its own log, until a signal stops it.

    :raises ConfigurationError: as ``make_mirror`` does.
    :raises SystemExit: when the mirror cannot listen, with the message.
    """
    from twisted.internet import reactor

    running: Any = reactor
    log = make_message_log()
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    mirror = make_mirror(read, environ, log)
    mirror.privilegedStartService()
    mirror.startService()
    running.addSystemEventTrigger("before", "shutdown", mirror.stopService)
    running.run()


def make_mirror(
    read: Callable[[], Settings], environ: Mapping[str, str], log: MessageLog | None = None
) -> MultiService:
    """Make the whole mirror, ready to start.

    The operations endpoint is added first, so that it stops last.

    :param read: reads the settings, now and at each SIGHUP.
    :param environ: may name proxies and hold passwords; credential helpers run in it.
    :param log: takes the form of its lines from the settings; None if another program writes the log.
    :raises ConfigurationError: when the settings are invalid, or cannot be put into force.
    """
    from twisted.internet import reactor

    running: Any = reactor

    def read_checked() -> Settings:
        """Check lock files too; a worker that finds one malformed refuses its tags, and serves all others."""
        found = read()
        if found.policy:
            from .admission import check_lock_files

            check_lock_files(found)
        return found

    settings = read_checked()
    require_bindable(settings)
    if log is not None:
        log.form = settings.log_format
    workers = settings.workers or min(MAX_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))
    if workers == 1:
        server = _serve_here(settings, environ, running)
    else:
        server = _serve_in_workers(workers, settings, environ, running)
    log_questions(settings)

    async def apply(new: Settings) -> None:
        await server.apply(new)
        if log is not None:
            log.form = new.log_format

    reload = SettingsReload(settings, read_checked, apply, running)
    services = [*server.services]
    if settings.operations:
        operations = make_operations_site(lambda: reload.settings, server.telemetry, server.memory, running)
        endpoint, binding = operations_endpoint(settings), ReclaimingReactor(running)
        services.insert(0, make_listener("operations", endpoint, operations, binding, server.certificates))
    if settings.acme:
        from .acme import make_certificate_renewal

        services.append(make_certificate_renewal(settings, lambda: reload.settings, running))
    notices = ShutdownNotices(server.count_transfers, server.abort, running, _kill)
    shutdown = GracefulShutdown(running, on_first=notices.announce, on_second=notices.stop_now)
    notice = SystemdNotice(environ.get("NOTIFY_SOCKET", ""), server.when_serving)
    mirror = OrderedMultiService()
    for service in (*services, reload, shutdown, StartMessage(settings, server.when_serving), notice):
        service.setServiceParent(mirror)
    return mirror


def log_questions(settings: Settings) -> None:
    """Warn about values that can hardly be meant."""
    for question in question_settings(settings, disk_size(settings)):
        _log.warn("{question}", question=question)


def _kill() -> None:
    """End this process; its workers follow."""
    os.kill(os.getpid(), signal.SIGKILL)


def _serve_here(settings: Settings, environ: Mapping[str, str], reactor: Any) -> _Server:
    memory = SharedTables.create()
    process = ServingProcess(settings, environ, reactor, memory)
    binding = ReclaimingReactor(reactor)
    listeners = make_listeners(listen_endpoints(settings), process.site, process.certificates, binding)
    connections = process.site.connections

    async def count_transfers() -> int:
        return connections.running_requests

    services = [process.service, *listeners]
    return _Server(
        reactor.callWhenRunning, process.telemetry, memory, process.certificates, services, process.apply,
        count_transfers, connections.abort,
    )  # fmt: skip


def _serve_in_workers(count: int, settings: Settings, environ: Mapping[str, str], reactor: Any) -> _Server:
    """Bind the sockets here, and let workers accept from them; this process serves no client."""
    from . import worker  # one process needs none of it

    # A process that never starts finds settings that cannot be put into force before any worker does, and
    # reads the files that they name: a worker that replaces another one gets what it has read.
    trial = ServingProcess(settings, environ, reactor, SharedTables.create())
    bind_only = BindOnlyReactor(reactor)
    memory = create_shared_memory()
    current = settings

    def start_arguments() -> dict[str, Any]:
        return {**pack(current), "processes": count}

    async def apply(new: Settings) -> None:
        nonlocal current
        await trial.apply(new)
        previous, current = current, new  # a worker that starts meanwhile gets the new settings
        try:
            await pool.call_all("apply", pack(new))
        except RpcError as error:
            current = previous
            await trial.apply(previous)
            raise ConfigurationError(str(error)) from None

    async def count_transfers() -> int:
        return sum((await pool.call("transfers")).values())

    spawned = SpawnedWorkers("dockmirror.app.worker_main", environ, reactor)
    forked = ForkedWorkers(worker.main_of_fork, spawned)
    program = WorkerProgram(pass_on_output(forked.start), pass_on_output(spawned.start), memory)
    # The grace period of a worker ends before it is killed.
    pool = WorkerPool(count, program, lambda: bind_only.sockets, start_arguments, settings.grace + 5, reactor)
    listeners = make_listeners(
        listen_endpoints(settings), HttpSite(Resource(), reactor), trial.certificates, bind_only
    )
    services = [ClockStepGuard(reactor), pool, *listeners]
    return _Server(
        pool.when_serving, PoolTelemetry(pool), SharedTables.attach(memory), trial.certificates, services,
        apply, count_transfers, pool.abort,
    )  # fmt: skip


class SettingsReload(Service):
    """Reads the settings again at SIGHUP; invalid ones change nothing.

    :ivar settings: the settings in force.
    :param read: reads the settings, or raises ConfigurationError.
    :param apply: puts settings into force for new requests, or raises ConfigurationError and changes nothing.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        apply: Callable[[Settings], Coroutine[Any, Any, None]],
        reactor: IReactorFromThreads,
    ) -> None:
        self.settings = settings
        self._read = read
        self._apply = apply
        self._reactor = reactor
        self._turns = DeferredLock()

    def startService(self) -> None:
        """Handle the signal, even one that is waiting; must be called in the main thread."""
        super().startService()
        signal.signal(signal.SIGHUP, self._signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    def stopService(self) -> None:
        """Ignore the signal from now on: its default would cut off the transfers that are still running."""
        super().stopService()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(lambda: self._turns.run(self.reload).addErrback(_log_failed_reload))

    async def reload(self) -> None:
        """Put the settings into force that are read now, or log why not."""
        try:
            new = self._read()
            settings = new.model_copy(update=_start_only_settings(self.settings, new))
            await self._apply(settings)
        except ConfigurationError as error:
            _log.error("cannot reload the settings, keeping the previous ones: {error}", error=str(error))
            return
        pending = [key for key in (*START_ONLY, "cache_size") if getattr(new, key) != getattr(settings, key)]
        changed = ", ".join(list_changes(self.settings, settings)) or "none"
        self.settings = settings
        log_questions(settings)
        if pending:
            _log.warn(
                "settings reloaded; changed: {changed}; restart the mirror to apply {pending}",
                changed=changed, pending=", ".join(pending),
            )  # fmt: skip
        else:
            _log.info("settings reloaded; changed: {changed}", changed=changed)


def _start_only_settings(current: Settings, new: Settings) -> dict[str, Any]:
    """Return the current values of the settings that stay; the cache can be neither added nor removed."""
    keys = START_ONLY if has_cache(new) == has_cache(current) else (*START_ONLY, "cache_size")
    return {key: getattr(current, key) for key in keys}


def _log_failed_reload(failure: Failure) -> None:
    _log.failure("cannot reload the settings", failure=failure)


class ShutdownNotices:
    """Announces a shutdown in the log, and cuts off the transfers that it waits for.

    :param count_transfers: returns the number of running transfers.
    :param abort: cuts them off.
    :param leave: ends the process without waiting for anything.
    """

    def __init__(
        self,
        count_transfers: Callable[[], Coroutine[Any, Any, int]],
        abort: Callable[[], None],
        clock: IReactorTime,
        leave: Callable[[], object],
    ) -> None:
        self._count_transfers = count_transfers
        self._abort = abort
        self._clock = clock
        self._leave = leave

    def announce(self, received: signal.Signals) -> None:
        """Log the number of transfers that are finished first."""
        again = "Ctrl-C" if received == signal.SIGINT else received.name
        Deferred.fromCoroutine(self._announce(again)).addErrback(
            lambda failure: _log.failure("cannot count the transfers", failure=failure)
        )

    def stop_now(self) -> None:
        """Cut off all transfers; the process exits within seconds."""
        _log.warn("stopping now; running transfers are cut off")
        self._abort()
        self._clock.callLater(STOP_NOW_LIMIT, self._leave)

    async def _announce(self, again: str) -> None:
        count = await self._count_transfers()
        if count:
            transfers = "1 transfer" if count == 1 else f"{count} transfers"
            _log.info("finishing {transfers}; {again} again stops now", transfers=transfers, again=again)
        else:
            _log.info("stopping")
