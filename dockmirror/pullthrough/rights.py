"""What a client may be given of what is held, by what the upstream has said, or could not say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve

from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.request import Blob, Manifest, Request, repository_of
from ..work.resting import is_outage
from .asking import Asking
from .permission import Extent

Check = Callable[[Request, bool], Awaitable[bool]]


class Unproven(Exception):
    """An upstream's answer does not prove that it gives a held content; see ``oci/consent.py``."""


class Rights:
    """Decides by what was learnt in asking; where that is not enough, and it must, it asks."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def entitled(self, request: Request) -> bool:
        """Whether the upstream has said lately that this client may pull from this repository."""
        return self._granted(request) or await self.public(request)

    def _granted(self, request: Request) -> bool:
        repository, credentials = repository_of(request.target), request.credentials
        if repository is None or credentials is None:
            return False
        return self._asking.grants.granted(repository, credentials, Extent.of(request.target))

    async def public(self, request: Request) -> bool:
        """Whether the upstream has said lately that everybody may."""
        repository = repository_of(request.target)
        extent = Extent.of(request.target)
        return repository is not None and await self._asking.public.known(repository, extent=extent)

    async def for_everybody(self, request: Request) -> bool:
        """Whether what is answered to this request may be given to anybody else."""
        return request.credentials is None and await self.public(request)

    async def covered(self, request: Request, digest: Digest | None = None) -> bool:
        """Whether, as far as is known, this client may be given what is held if the upstream does not say.

        :param digest: of what is held, where the request does not name it.
        """
        if await self.entitled(request):
            return True
        repository, digest = repository_of(request.target), digest or _digest_of(request)
        if repository is None:
            return False
        extent = Extent.of(request.target)
        if await self._asking.public.known(repository, unasked=True, extent=extent):
            return True
        return digest is not None and await self._asking.public.imported(repository, digest)

    async def may_be_given_stale(
        self, request: Request, digest: Digest | None = None, check: Check | None = None
    ) -> bool:
        """The same when the upstream has just not said.

        What was public longer ago than a day counts only if the mirror cannot ask anonymously either.

        :param check: asks the upstream; see ``consents``.
        """
        covered = await self.covered(request, digest)
        if request.credentials is None or not covered or await self.entitled(request):
            return covered
        try:
            return await (check or self._asking.check)(evolve(request, credentials=None), True)
        except RegistryError as error:
            return self.stands_in(error)

    def stands_in(self, error: RegistryError) -> bool:
        """Whether what is held may stand in for such an answer."""
        return is_outage(error) or (self._asking.keep_vanished and error.status == 404)

    async def consents(self, request: Request, check: Check) -> bool:
        """Whether the upstream gives this; False where it does not say, and what is held may stand in.

        :param check: asks the upstream, and returns whether it has proven that it gives this; it is told
            whether the store can answer instead.
        :raises RegistryError: when it is refused, or nothing may stand in.
        :raises Unproven: when the upstream's answer proves nothing.
        """
        try:
            proven = await check(request, not await self.entitled(request) and await self.covered(request))
        except RegistryError as error:
            if not self.stands_in(error) or not await self.may_be_given_stale(request, check=check):
                raise
            return False
        if not proven:
            raise Unproven
        return True


def _digest_of(request: Request) -> Digest | None:
    if isinstance(request.target, Blob):
        return request.target.digest
    if isinstance(request.target, Manifest) and isinstance(request.target.reference, Digest):
        return request.target.reference
    return None
