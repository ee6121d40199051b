"""Certificates by ACME, and the proofs of its challenges.

A certificate authority may ask any of the mirrors that share a bucket, so proofs are put there.  They are no
secrets: an authority fetches them from everybody.  Keys and certificates stay on their machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from time import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.resource import IResource

from ..concurrency.coroutines import SingleFlight
from ..config.settings import ConfigurationError, Settings
from ..store import layout
from ..system.reactor_services import run_in_daemon_thread
from ..tls.acme_renewal import TOKEN, AcmeStore, CertificateRenewal
from ..web.respond import AcmeChallengeRoute
from .cache_settings import bucket_address
from .naming import certificate_names

if TYPE_CHECKING:
    from ..store.bucket.blocking_bucket import BucketAddress
    from ..store.bucket.bucket import Bucket

LIST_PERIOD = 1.0
"""Seconds between the beginnings of two listings, however many unknown tokens are asked for."""
FIND_TIMEOUT = 8.0
"""Seconds within which a proof must be found; an authority waits for about ten."""
LEFT_BEHIND = 86_400.0
"""Seconds after which a proof is one that a killed mirror left behind."""


class ProofPublisher:
    """Publishes proofs on this machine and in the bucket; its calls block.

    :param now: returns the time in seconds since the epoch.
    """

    def __init__(self, local: AcmeStore, address: BucketAddress, now: Callable[[], float]) -> None:
        from ..store.bucket.blocking_bucket import open_for_small_objects

        self._local = local
        self._name = str(address)
        self._bucket = open_for_small_objects(address)
        self._now = now

    @contextmanager
    def publish_proofs(self) -> Iterator[Callable[[str, str], None]]:
        """Yield a function that publishes the proof for a token; remove the proofs at the end.

        The function raises OSError if the bucket fails, before the authority is told to ask.
        """
        keys: list[str] = []

        def prove(token: str, proof: str) -> None:
            prove_locally(token, proof)
            keys.append(str(layout.acme_proof(token)))
            with self._bucket_errors():
                self._bucket.put(keys[-1], proof.encode(), {})

        with self._local.publish_proofs() as prove_locally:
            try:
                yield prove
            finally:
                with suppress(OSError), self._bucket_errors():
                    self._bucket.delete(keys)
                    self._bucket.delete(self._left_behind())

    def _left_behind(self) -> list[str]:
        listed = self._bucket.list(str(layout.ACME_PROOFS))
        return [each.key for each in listed if self._now() - each.modified > LEFT_BEHIND]

    @contextmanager
    def _bucket_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        from ..store.bucket.bucket import describe_error

        try:
            yield
        except BaseError as error:
            raise OSError(f"{self._name} does not take the proof: {describe_error(error)}") from None


class ProofFinder:
    """Finds the proofs that other mirrors have put into the bucket.

    Everybody may ask for any token, so the bucket is listed instead of asked for each: at most once in a
    second, and never from before the request, since an authority asks as soon as there is a proof.
    """

    def __init__(self, bucket: Bucket, clock: IReactorTime) -> None:
        self._bucket = bucket
        self._clock = clock
        self._tokens: frozenset[str] = frozenset()
        self._listed = clock.seconds() - LIST_PERIOD
        self._listings: SingleFlight[None, None] = SingleFlight()

    async def find(self, token: str) -> bytes | None:
        """Return the proof for a token; None if there is none, or the bucket fails or takes too long."""
        if not TOKEN.fullmatch(token):
            return None
        finding = Deferred.fromCoroutine(self._find(token))
        finding.addTimeout(FIND_TIMEOUT, self._clock, lambda *_: None)
        return await finding

    async def _find(self, token: str) -> bytes | None:
        requested = self._clock.seconds()
        is_first = True
        try:
            while is_first or self._listed < requested:
                is_first = False
                await self._listings.get(None, self._list)
            read = await self._bucket.read(layout.acme_proof(token)) if token in self._tokens else None
        except OSError:  # logged by the bucket
            return None
        return read[0] if read else None

    async def _list(self) -> None:
        pause = self._listed + LIST_PERIOD - self._clock.seconds()
        if pause > 0:
            await deferLater(self._clock, min(pause, LIST_PERIOD))
        self._listed = self._clock.seconds()
        found = await self._bucket.list(layout.ACME_PROOFS)
        self._tokens = frozenset(PurePosixPath(each.key).name for each in found)


def route_challenges(
    settings: Settings, resource: IResource, bucket: Bucket | None, clock: IReactorTime
) -> IResource:
    """Return the resource with the proofs in front of it, if the settings have certificates issued."""
    if settings.acme is None or settings.certificates is None:
        return resource
    shared = None if bucket is None else ProofFinder(bucket, clock).find
    return AcmeChallengeRoute(resource, AcmeStore(settings.certificates).find_proof, shared)


def missing_certificates(settings: Settings) -> Sequence[Path]:
    """Return the files of the certificates that the authority has not issued yet."""
    if settings.acme is None or settings.certificates is None:
        return ()
    store = AcmeStore(settings.certificates)
    return [
        store.certificate_path(name)
        for name in certificate_names(settings)
        if not store.certificate_path(name).exists()
    ]


def make_certificate_renewal(
    settings: Settings, current_settings: Callable[[], Settings], reactor: Any
) -> Service:
    """Return the service that has an authority issue the certificates; one process runs it for all.

    :param current_settings: returns the settings whose names need certificates, now and after a reload.
    :raises ConfigurationError: when the extra is not installed, or there is no name to certify.
    """
    try:
        from ..tls.acme_client import AcmeClient
    except ImportError:
        raise ConfigurationError("acme: needs the extra 'acme': pip install 'dockmirror[acme]'") from None
    if settings.domain == "localhost":
        raise ConfigurationError("acme: needs a public 'domain': no authority certifies localhost")
    assert settings.acme is not None
    assert settings.certificates is not None
    store = AcmeStore(settings.certificates)
    address = bucket_address(settings)
    publish = ProofPublisher(store, address, time).publish_proofs if address else store.publish_proofs
    authority = AcmeClient(settings.acme_directory, settings.acme, settings.acme_ca_file, store, publish)
    return CertificateRenewal(
        lambda: certificate_names(current_settings()),
        store.renewal_time,
        lambda name: run_in_daemon_thread(reactor, partial(authority.issue, name)),
        reactor,
    )
