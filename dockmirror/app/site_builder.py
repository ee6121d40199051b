"""What the mirror serves, of the settings that are in force; there may be others while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from ..config.settings import ConfigurationError, Settings
from ..http.server_request import ServerRequest
from ..interfaces import IRegistry
from ..system.append_only_file import AppendOnlyFile
from ..tls.acme_store import AcmeStore
from ..web.access_log import AccessLog, AuditLog, Write
from ..web.acme_challenge import AcmeChallengeRoute
from ..web.connection_limit import ConnectionLimit, ConnectionLimitedSite
from ..web.operations_endpoint import HealthRoute
from ..web.recent_requests import RecentRequests
from ..web.shared_tables import SharedTables
from ..web.site import VirtualHosts
from ..web.token_resource import FORM_LIMIT, is_form
from ..web.write_resource import may_stream
from .access_rules import InThread, apply_access_rules, http_limits, keys_of, proxies
from .accounts import Ask, accounts
from .cache import CacheParts, budget
from .hosts import hosts
from .process_telemetry import counted
from .telemetry import Telemetry
from .upstream_stack import AgentFor

Log = Callable[[ServerRequest], None]
_log = Logger()


class SiteBuilder:
    """The site, and what it serves; requests that run already go on by the settings they began with.

    :ivar settings: those in force, once anything is served.
    :ivar registry: what lies on the mirror's own host then.
    :param write: takes a line of the access log.
    :param cache: where what is fetched is kept; without one the mirror is a relay.
    :param environ: in which the mirror's own passwords may be given, and credential helpers run.
    :param in_thread: where clients' passwords are looked at.
    :param ask: what runs credential helpers.
    :param memory: of what clients have had and asked for.
    :param connections: how many there is room for here; the settings may allow fewer.
    :param share: how many processes share those of which the settings say how many there may be.
    """

    def __init__(
        self,
        clock: IReactorTime,
        agent_for: AgentFor,
        write: Write,
        cache: CacheParts | None,
        watched: Telemetry,
        environ: Mapping[str, str],
        in_thread: InThread,
        ask: Ask,
        memory: SharedTables,
        connections: int,
        share: int = 1,
    ) -> None:
        self.site = ConnectionLimitedSite(Resource(), clock, body_limit=_body_limit)
        self._clock = clock
        self._agent_for = agent_for
        self._write = write
        self._cache = cache
        self._watched = watched
        self._environ = environ
        self._in_thread = in_thread
        self._ask = ask
        self._memory = memory
        self._connections = connections
        self._share = share
        self._recent = RecentRequests(clock, memory.recent)
        self._audit: AppendOnlyFile | None = None
        self.settings: Settings
        self.registry: IRegistry

    def serve(self, settings: Settings) -> None:
        """Puts settings into force.

        :raises ConfigurationError: when they cannot be put into practice; nothing has changed then.
        """
        found = self._hosts(settings)
        resource = self._resource(settings, found)
        audit = _audit(settings)
        self.site.serve(resource, self._log(settings, audit), http_limits(settings))
        access = settings.access
        self.site.limit = ConnectionLimit(
            self._room(access.connections), access.connections_per_network, proxies(settings)
        )
        if self._cache is not None and settings.cache is not None:
            self._cache.eviction.set_budget(budget(settings.cache, settings))
        if self._audit is not None:
            self._audit.close()
        self._audit = audit
        self.settings = settings
        self.registry = found.registry

    def _room(self, most: int | None) -> int:
        """How many connections of clients there may be here.

        More than there is room for would find no descriptors, and neither would whatever else needs one: a
        process that has none left can only drop those who come, and says so for each.
        """
        if most is None:
            return self._connections
        share = max(1, most // self._share)
        if share > self._connections:
            _log.warn(
                "access.connections: of {share} there is room for {room}: the limit of open files is too low",
                share=share,
                room=self._connections,
            )
        return min(share, self._connections)

    def _resource(self, settings: Settings, found: VirtualHosts) -> IResource:
        entered = apply_access_rules(settings, found, self._clock, self._in_thread, self._memory)
        resource = HealthRoute(entered)
        if settings.acme is None or settings.certificates is None:
            return resource
        return AcmeChallengeRoute(resource, AcmeStore(settings.certificates).proof)

    def _hosts(self, settings: Settings) -> VirtualHosts:
        own = accounts(settings, self._environ, self._ask, self._clock)
        writes = any(upstream.writes for upstream in settings.upstreams.values())
        return hosts(
            settings, self._clock, self._agent_for, self._cache, self._watched, own, self._recent,
            keys_of(settings) if writes else (),
        )  # fmt: skip

    def _log(self, settings: Settings, audit: AppendOnlyFile | None) -> Log:
        logs: list[Log] = [
            AccessLog(settings.log_format, self._clock, self._write),
            counted(settings, self._watched.metrics),
            self._recent,
        ]
        if audit is not None:
            logs.append(AuditLog(self._clock, audit.write))

        def log(request: ServerRequest) -> None:
            for each in logs:
                each(request)

        return log


def _body_limit(request: ServerRequest) -> int | None:
    if is_form(request):
        return FORM_LIMIT
    return None if may_stream(request) else 0


def _audit(settings: Settings) -> AppendOnlyFile | None:
    try:
        return AppendOnlyFile(settings.access.audit) if settings.access.audit else None
    except OSError as error:
        raise ConfigurationError(f"access.audit: cannot be written: {error.strerror}") from None
