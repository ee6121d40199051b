"""The pages and archives on the mirror's hosts, whose code is imported when somebody requests one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from ..config.settings import Settings
from ..http.server_request import ServerRequest
from ..interfaces import IRegistry
from ..middleware.filters import PullRules
from ..oci.errors import Unsupported
from ..oci.request import Reference, Repository
from ..web.respond import RefusalResource
from ..web.site import LateResource
from .cache_stack import HostRegistries, StackContext
from .naming import mirror_address, parse_client_name, pull_name, setup_address

if TYPE_CHECKING:
    from ..web.images.images_resource import ClientViewer, VisibleUpstream
    from ..web.pages.resources import PageFactory


class LatePages:
    """The pages for people."""

    def __init__(self, settings: Settings, context: StackContext) -> None:
        self._settings = settings
        self._context = context
        self._factory: PageFactory | None = None

    def resources(self, registry: str | None = None) -> Mapping[str, Resource]:
        """See ``PageFactory.resources``."""
        names = ("", "client", "pulls", "setup")
        return {name: LateResource(partial(self._make, registry, name)) for name in names}

    def unknown_host(self) -> Resource:
        """Return the page for names that are not the mirror's; see ``UnknownHost``."""

        def make() -> Resource:
            from ..web.pages.resources import UnknownHost

            return UnknownHost(partial(mirror_address, self._settings))

        return LateResource(make)

    def _make(self, registry: str | None, name: str) -> Resource:
        if self._factory is None:
            self._factory = self._make_factory()
        return self._factory.resources(registry)[name]

    def _make_factory(self) -> PageFactory:
        from ..web.pages.own_pulls import PullFinder
        from ..web.pages.resources import PageContext, PageFactory

        settings, context = self._settings, self._context
        finder = PullFinder()
        if context.history is not None:
            reader, in_thread = context.history.reader, context.history.in_thread
            finder = PullFinder(reader, settings.history_addresses, in_thread)
        find_setup = partial(setup_address, settings)
        return PageFactory(PageContext(partial(mirror_address, settings), find_setup, finder, context.clock))


def make_export_resource(settings: Settings, registry: IRegistry) -> Resource:
    """Return the resource of images as archives."""
    if not settings.export:
        return RefusalResource(
            Unsupported("this mirror exports no archives: 'export' is not set", status=404)
        )

    from ..archive.exporter import ArchiveExporter
    from ..web.export_resource import ExportResource

    def parse(image: str) -> tuple[Repository, Reference]:
        name = parse_client_name(image, settings)
        return name.repository, name.reference

    return ExportResource(ArchiveExporter(registry), parse)


def make_images_resource(
    settings: Settings, context: StackContext, stacks: Mapping[str, HostRegistries]
) -> Resource:
    """Return the pages of images on the own host.

    :param stacks: the registries of each upstream, by its name in the settings.
    """
    cache = context.cache
    if not settings.images or cache is None:
        return RefusalResource(Unsupported("this mirror shows no images: 'images' is not set", status=404))

    def make() -> Resource:
        from ..web.images.catalog import ImageCatalog, PullFigures
        from ..web.images.images_resource import ImagesContext, ImagesResource

        viewers = Viewers(settings, stacks)
        history = context.history.reader if context.history else None
        return ImagesResource(
            ImagesContext(
                ImageCatalog(cache.usages.index),
                PullFigures(history, context.clock.seconds),
                cache.tag_history,
                cache.in_thread,
                context.clock,
                viewers.find,
                viewers.find_pull,
            )
        )

    return LateResource(make)


class Viewers:
    """Tells what each client may see: a user of the mirror more than a client without a name."""

    def __init__(self, settings: Settings, stacks: Mapping[str, HostRegistries]) -> None:
        self._settings = settings
        self._stacks = stacks

    def find(self, request: ServerRequest) -> ClientViewer:
        client = request.admitted_client
        return self.viewer(is_user=client is not None and client.user is not None)

    def viewer(self, is_user: bool) -> ClientViewer:
        """Return what a client may see, whose name the mirror knows or not."""
        from ..web.images.images_resource import ClientViewer

        return ClientViewer(self._upstreams(), is_user)

    def find_pull(self, request: ServerRequest, image: str) -> str:
        """Return the name by which the client pulls an image from the mirror's own host."""
        client = request.admitted_client
        assert client is not None, "the gate lies before every host"
        host = mirror_address(self._settings, client.scheme, client.host).host
        return f"{host}/{pull_name(image, self._settings)}"

    def _upstreams(self) -> list[VisibleUpstream]:
        from ..web.images.images_resource import VisibleUpstream

        return [
            VisibleUpstream(
                name,
                upstream.canonical,
                stack.public,
                stack.choice.has_account,
                PullRules(f"upstreams.{name}", upstream.allow, upstream.deny),
            )
            for name, upstream in self._settings.upstreams.items()
            if (stack := self._stacks.get(name)) is not None and stack.public is not None
        ]
