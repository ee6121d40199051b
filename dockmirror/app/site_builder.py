"""The site that clients see: virtual hosts behind access rules; a reload replaces them while it runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from ..config.settings import ConfigurationError, Settings, setting_errors
from ..http.connections import ConnectionLimit, HttpLimits
from ..http.server_request import ServerRequest
from ..http.usage import RateCounters
from ..interfaces import IRegistry
from ..metrics import Metrics
from ..middleware.names import NamespaceFilter, RegistryRouter
from ..system.networks import Network, NetworkAccess, parse_networks
from ..system.posix import AppendOnlyFile
from ..system.shared_table import SharedDigests
from ..system.times import format_timestamp
from ..web.access_log import AccessLog, AuditLog, Write
from ..web.client_limits import ConnectionLimitedSite
from ..web.respond import AccelFilter, HealthRoute, LoopFilter, NetworkFilter
from ..web.shared_tables import SharedTables
from ..web.site import FORM_LIMIT, RegistryHost, VirtualHosts, is_form, may_stream
from .accounts import Accounts
from .cache_settings import check_without_cache, make_budget, make_retention
from .cache_stack import HostRegistries, StackContext
from .host_pages import LatePages, make_export_resource, make_images_resource
from .naming import (
    ask_by_store_names,
    own_host_names,
    registry_names,
)
from .stack import build_stack
from .telemetry import make_request_counter
from .usage_limits import BudgetCounters, limit_rate, make_budgets

Log = Callable[[ServerRequest], None]
InThread = Callable[[Callable[[], bool]], Awaitable[bool]]
LoadAccounts = Callable[[Settings], Mapping[str, Accounts]]
_log = Logger()


@frozen
class ConnectionShare:
    """The client connections that this process may have open.

    :ivar capacity: connections that the limit of open files leaves room for.
    :ivar processes: processes that share the connections which the settings allow.
    """

    capacity: int
    processes: int = 1

    def limit(self, allowed: int | None) -> int:
        """Return how many connections to accept when the settings allow *allowed* of all processes.

        Beyond its capacity a process has no descriptors left for files and upstreams either.
        """
        if allowed is None:
            return self.capacity
        share = max(1, allowed // self.processes)
        if share > self.capacity:
            _log.warn(
                "access.connections: of {share} there is room for {room}: the limit of open files is too low",
                share=share,
                room=self.capacity,
            )
        return min(share, self.capacity)


class SiteBuilder:
    """Builds the site from the settings, and again at each reload; running requests keep the old settings.

    :ivar site: the site that listens.
    :ivar stacks: the registries of the upstreams, by their names in the settings.
    :ivar settings: the settings in force, once ``apply`` was called.
    :ivar registry: the registry of the mirror's own host, asked by the names in the store.
    :param load_accounts: returns the mirror's own accounts, by the names of their upstreams.
    :param write_line: takes a line of the access log.
    :param in_thread: checks passwords, which takes long on purpose.
    :param memory: counts what each client network was sent, and its failed logins.
    """

    def __init__(
        self,
        context: StackContext,
        load_accounts: LoadAccounts,
        write_line: Write,
        in_thread: InThread,
        memory: SharedTables,
        connections: ConnectionShare,
    ) -> None:
        self.site = ConnectionLimitedSite(Resource(), context.clock, body_limit=_body_limit)
        self._context = evolve(context, audit=self._write_audit, mirror_id=memory.mirror_id)
        self._load_accounts = load_accounts
        self._write_line = write_line
        self._in_thread = in_thread
        self._memory = memory
        self._connections = connections
        self._audit: AppendOnlyFile | None = None
        self.stacks: Mapping[str, HostRegistries] = {}
        self.settings: Settings
        self.registry: IRegistry

    def apply(self, settings: Settings) -> None:
        """Put settings into force.

        :raises ConfigurationError: when they are invalid; then the previous ones stay in force.
        """
        if self._context.cache is None:
            check_without_cache(settings)
        accounts = self._load_accounts(settings)
        needs_keys = any(upstream.writes for upstream in settings.upstreams.values()) or (
            settings.peers and settings.access.htpasswd is not None
        )
        signing_keys = load_signing_keys(settings) if needs_keys else ()
        counters, metrics = BudgetCounters(self._memory), self._context.telemetry.metrics
        budgets = make_budgets(settings, self._context.clock, counters, metrics)
        context = evolve(self._context, budgets=budgets)
        stacks = {
            name: build_stack(name, settings, context, accounts.get(name, {}), signing_keys)
            for name in settings.upstreams
        }
        hosts = build_hosts(settings, context, stacks)
        resource = self._resource(settings, hosts)
        audit = _open_audit_log(settings)
        self.site.serve(resource, self._make_log(settings, audit), _http_limits(settings))
        access, cache = settings.access, self._context.cache
        self.site.limit = ConnectionLimit(
            self._connections.limit(access.connections),
            access.connections_per_network,
            _proxy_networks(settings),
        )
        if cache is not None:
            cache.eviction.set_budget(make_budget(cache.root, settings))
            cache.eviction.set_retention(make_retention(settings))
        if self._audit is not None:
            self._audit.close()
        self._audit = audit
        for stack in self.stacks.values():
            if stack.refresher is not None:
                stack.refresher.stop()
        self.stacks = stacks
        self.settings = settings
        self.registry = ask_by_store_names(hosts.registry, settings)

    def _write_audit(self, event: dict[str, str]) -> None:
        if self._audit is not None:
            time = format_timestamp(self._context.clock.seconds())
            self._audit.write(json.dumps({"time": time, **event}))

    def _resource(self, settings: Settings, hosts: VirtualHosts) -> IResource:
        clock, metrics = self._context.clock, self._context.telemetry.metrics
        guarded = apply_access_rules(settings, hosts, clock, self._in_thread, self._memory, metrics)
        if settings.acme is None:
            return HealthRoute(guarded)
        from .acme import route_challenges

        cache = self._context.cache
        bucket = None if cache is None else cache.bucket
        return route_challenges(settings, HealthRoute(guarded), bucket, clock)

    def _make_log(self, settings: Settings, audit: AppendOnlyFile | None) -> Log:
        clock, telemetry = self._context.clock, self._context.telemetry
        logs: list[Log] = []
        if telemetry.pulls is not None:
            logs.append(telemetry.pulls.end)
        logs += [
            AccessLog(settings.log_format, clock, self._write_line),
            make_request_counter(settings, telemetry.metrics),
        ]
        if audit is not None:
            logs.append(AuditLog(clock, audit.write))

        def log(request: ServerRequest) -> None:
            for each in logs:
                each(request)

        return log


def _body_limit(request: ServerRequest) -> int | None:
    if is_form(request):
        return FORM_LIMIT
    return None if may_stream(request) else 0


def _open_audit_log(settings: Settings) -> AppendOnlyFile | None:
    try:
        return AppendOnlyFile(settings.access.audit) if settings.access.audit else None
    except OSError as error:
        raise ConfigurationError(f"access.audit: cannot be written: {error.strerror}") from None


def build_hosts(
    settings: Settings,
    context: StackContext,
    stacks: Mapping[str, HostRegistries],
) -> VirtualHosts:
    """Build a virtual host for each upstream, and the mirror's own host in front of all of them.

    :param stacks: the registries of each upstream, by its name in the settings.
    """
    pages = LatePages(settings, context)
    hosts: dict[str, RegistryHost] = {}
    own: dict[str, IRegistry] = {}
    for name, stack in stacks.items():
        names = registry_names(settings.upstreams[name])
        hosts[settings.host(name)] = RegistryHost(
            stack.virtual, pages.resources(names[0]), tokens=stack.tokens, writes=stack.writes
        )
        own = {**dict.fromkeys(names, stack.own), **own}
    canonical = {name: upstream.canonical for name, upstream in settings.upstreams.items()}
    router = RegistryRouter(own, own["docker.io"], canonical)
    root = RegistryHost(
        router,
        {
            **pages.resources(),
            "export": make_export_resource(settings, router),
            "images": make_images_resource(settings, context, stacks),
        },
        by_path={
            name: NamespaceFilter(registry, [other for other, each in own.items() if each is registry])
            for name, registry in own.items()
        },
    )
    for name in own_host_names(settings):
        hosts[name] = root
    if settings.default:
        return VirtualHosts(hosts, root, hosts[settings.host(settings.default)])
    return VirtualHosts(hosts, root, pages.unknown_host())


def apply_access_rules(
    settings: Settings,
    resource: IResource,
    clock: IReactorTime,
    in_thread: InThread,
    memory: SharedTables,
    metrics: Metrics,
) -> IResource:
    """Wrap a resource in the access rules: the client's network, loops, its rate limit, its login.

    :raises ConfigurationError: when the file of users or of keys is missing or invalid.
    """
    access = settings.access
    if settings.accel == "nginx":
        resource = AccelFilter(resource)
    if access.htpasswd is not None:
        from ..users import Htpasswd, UserTokens
        from ..web.auth import AuthFilter
        from ..web.client_limits import FailedLogins

        digests = SharedDigests(memory.verified_passwords, clock.seconds)
        with setting_errors("access.htpasswd"):
            users = Htpasswd(access.htpasswd, in_thread, digests)
        tokens = UserTokens(load_signing_keys(settings), clock)
        resource = AuthFilter(resource, users, tokens, FailedLogins(memory.failed_logins, clock))
    resource = limit_rate(settings, resource, clock, RateCounters(memory.rate_counters), metrics)
    networks = NetworkAccess(
        tuple(parse_networks(settings.networks)),
        _proxy_networks(settings),
        trusts_unix_socket="unix" in settings.trust_proxy,
    )
    return NetworkFilter(LoopFilter(resource, memory.mirror_id), networks)


def _http_limits(settings: Settings) -> HttpLimits:
    access = settings.access
    return HttpLimits(
        head_seconds=access.head_timeout,
        body_seconds=access.body_timeout,
        idle_seconds=access.idle_timeout,
        write_seconds=access.stall_timeout,
    )


def _proxy_networks(settings: Settings) -> tuple[Network, ...]:
    return tuple(parse_networks(name for name in settings.trust_proxy if name != "unix"))


def load_signing_keys(settings: Settings) -> Sequence[bytes]:
    """Read the keys that sign the tokens and locations which clients bring back.

    :raises ConfigurationError: when the file of keys cannot be read or created.
    """
    from ..users import read_signing_keys

    assert settings.access.keys is not None
    with setting_errors("access.keys"):
        return read_signing_keys(settings.access.keys)
