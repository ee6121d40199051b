"""The API and the pages of images and of the history at the operations endpoint, built from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.web.resource import Resource

from ..concurrency.coroutines import run_in_pool
from ..config.settings import Settings, setting_errors
from ..http.server import HttpSite
from ..http.server_request import ServerRequest
from ..oci.request import Reference, Repository
from ..system.posix import AppendOnlyFile
from ..system.reactor_services import run_in_daemon_thread
from ..system.shared_table import SharedDigests
from ..web.shared_tables import SharedTables
from ..web.site import LateResource
from .cache_settings import bucket_address, has_cache
from .endpoints import listening_ports
from .history import open_history
from .naming import (
    ImageName,
    complete_image_pattern,
    mirrored_registries,
    operations_host_names,
    parse_client_name,
    parse_image_name,
    pull_name,
)
from .telemetry import find_version

if TYPE_CHECKING:
    from ..users import ApiTokens, InThread, VerifiedDigests
    from ..web.operations_endpoint import OperationsResource, WorkerTelemetry
    from ..web.status.overview import HistorySource, RuleSource

_BODY_LIMIT = 64 * 1024
_log = Logger()


def operations_body_limit(request: ServerRequest) -> int:
    """Return how many bytes of a request's body are collected."""
    return _BODY_LIMIT if request.path.startswith((b"/api/", b"/images/")) else 0


def load_api_tokens(settings: Settings, in_thread: InThread, verified: VerifiedDigests) -> ApiTokens | None:
    """Return the tokens of the API, or None if there are none.

    :raises ConfigurationError: when their file is missing or malformed.
    """
    if settings.api_tokens_file is None:
        return None
    from ..users import ApiTokens

    with setting_errors("api_tokens_file"):
        return ApiTokens(settings.api_tokens_file, in_thread, verified)


def make_operations_site(
    settings: Callable[[], Settings], telemetry: WorkerTelemetry, memory: SharedTables, reactor: Any
) -> HttpSite:
    """Return the site of the operations endpoint, most of which is imported at the first request.

    :param settings: returns the settings in force.
    :raises ConfigurationError: when the file of tokens is missing or malformed.
    """
    operations = _Operations(settings, memory, reactor)
    started = reactor.seconds()

    def make_resource() -> OperationsResource:
        from ..web.operations_endpoint import OperationsResource
        from ..web.status.overview import StatusOverview

        overview = StatusOverview(
            telemetry,
            operations.history_source(),
            find_version("dockmirror"),
            started,
            reactor,
            operations.rule_source(),
        )
        return OperationsResource(
            telemetry,
            overview,
            lambda: operations_host_names(settings()),
            reactor,
            operations.resources(),
        )

    return HttpSite(LateResource(make_resource), reactor, body_limit=operations_body_limit)


class _Operations:
    """Builds the page of the history, and the resources that need the cache.

    :param memory: counts failed logins, and remembers tokens that were verified.
    """

    def __init__(self, settings: Callable[[], Settings], memory: SharedTables, reactor: Any) -> None:
        self._settings = settings
        self._memory = memory
        self._reactor = reactor
        self._in_thread = run_in_pool(reactor, reactor.getThreadPool())
        current = settings()
        self._root = current.cache if has_cache(current) else None
        self._history = open_history(current, reactor)
        verified = SharedDigests(memory.verified_passwords, reactor.seconds)
        self._tokens = load_api_tokens(current, self._in_thread, verified)

    def history_source(self) -> HistorySource | None:
        """Return the source of the pulls, with those of the fleet if mirrors share a bucket."""
        if self._history is None:
            return None
        from ..web.status.overview import FleetSource, HistorySource

        fleet, address = None, bucket_address(self._settings())
        if address is not None:
            from .fleet_bucket import FleetReader

            in_thread = partial(run_in_daemon_thread, self._reactor)
            fleet = FleetSource(FleetReader(address).read, in_thread, self._reactor)
        return HistorySource(self._history.reader, self._history.in_thread, self._reactor, fleet)

    def rule_source(self) -> RuleSource:
        """Return the source of the states of rules about images; without a cache, none is kept in sync."""
        from ..web.status.overview import RuleSource, RuleStates
        from .sync_rules import list_states, make_sync_rules
        from .usage_limits import BudgetCounters, read_budgets

        root, counters = self._root, BudgetCounters(self._memory)

        def read() -> RuleStates:
            current = self._settings()
            sync = list_states(make_sync_rules(current), root) if root is not None else ()
            return RuleStates(sync, read_budgets(current, counters, self._reactor.seconds()))

        return RuleSource(read, self._in_thread, self._reactor)

    def resources(self) -> Mapping[str, Resource]:
        """Return the resources by the first segment of their path."""
        return {"history": self._history_page(), **self._cache_resources()}

    def _history_page(self) -> Resource:
        from ..store.held_images import HeldImages
        from ..web.pages.history_form import FormReader
        from ..web.pages.history_page import HistoryContext, HistoryResource

        settings = self._settings
        addresses, days = settings().history_addresses, settings().history_days

        def complete(text: str) -> str:
            return complete_image_pattern(text, settings())

        context = HistoryContext(
            self._history.reader if self._history else None,
            self._in_thread,
            self._reactor,
            FormReader(complete, days, addresses),
            HeldImages(self._root) if self._root is not None else None,
        )
        return HistoryResource(context)

    def _cache_resources(self) -> Mapping[str, Resource]:
        root, settings = self._root, self._settings
        if root is None:
            return {}
        from ..admission.recall_enforcement import RecallOrder
        from ..store.packed_images import ExportGate
        from ..store.store_index import StoreIndex
        from ..store.tag_history import LocalTagHistory
        from ..web.api.api_resource import ApiResource
        from ..web.auth import TokenAuth
        from ..web.client_limits import FailedLogins
        from ..web.images.catalog import ImageCatalog, PullFigures
        from ..web.images.images_resource import ImagesContext, ImagesResource, OperatorViewer
        from ..web.images.operator_pages import OperatorPages
        from ..web.operator_actions import ImageActions, ImageNames, ParseImage, RecallActions
        from .local_admission import ExportGates

        def parse(image: str) -> tuple[Repository, Reference]:
            name = parse_image_name(image, settings())
            return name.repository, name.reference

        def parse_listed(image: str) -> tuple[Repository, Reference]:
            name = parse_client_name(image, settings())  # the pages list the names at the upstream
            return name.repository, name.reference

        def make_actions(parse_image: ParseImage) -> ImageActions:
            names = ImageNames(parse_image, lambda: mirrored_registries(settings()))
            return ImageActions(root, names, self._in_thread, self._reactor, audit, gate)

        def audit(line: str) -> None:
            _write_audit_line(settings(), line)

        def gate(repository: Repository, reference: Reference) -> ExportGate:
            gates = ExportGates(settings(), root, self._reactor.seconds())
            return gates.make(ImageName(repository, reference))

        def order() -> RecallOrder:
            return RecallOrder(root, bucket_address(settings()), self._reactor.seconds)

        reader = self._history.reader if self._history else None
        actions, index = make_actions(parse), StoreIndex(root)
        failed_logins = FailedLogins(self._memory.failed_logins, self._reactor)
        auth = TokenAuth(self._tokens, failed_logins, actions.record_refusal)
        operator = OperatorPages(make_actions(parse_listed), auth, self._reactor)
        context = ImagesContext(
            ImageCatalog(index),
            PullFigures(reader, self._reactor.seconds),
            LocalTagHistory(root, self._reactor, self._in_thread),
            self._in_thread,
            self._reactor,
            lambda _: OperatorViewer(lambda registry: _upstreams_of(settings(), registry)),
            lambda _, image: f"{_own_host(settings())}/{pull_name(image, settings())}",
        )
        return {
            "images": ImagesResource(context, operator),
            "api": ApiResource(auth, actions, index, reader, RecallActions(actions, order)),
        }


def _upstreams_of(settings: Settings, registry: str) -> list[str]:
    return [name for name, each in settings.upstreams.items() if each.canonical == registry]


def _own_host(settings: Settings) -> str:
    """Return the host by which clients pull from the mirror's own host."""
    port = next(listening_ports(settings), None)
    return port.netloc(settings.domain) if port else settings.domain


def _write_audit_line(settings: Settings, line: str) -> None:
    """Append a line to the audit log, or without one to the mirror's log; called in a thread."""
    if settings.access.audit is None:
        _log.info("audit: {line}", line=line)
        return
    try:
        file = AppendOnlyFile(settings.access.audit)
    except OSError as error:
        _log.error("access.audit: {error}; not written: {line}", error=error.strerror, line=line)
        return
    file.write(line)
    file.close()
