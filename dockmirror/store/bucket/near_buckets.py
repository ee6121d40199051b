"""Copies of the bucket near clients: which blobs they have, and at which addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.application.service import MultiService, Service

from ...concurrency.coroutines import run_in_pool
from ...oci.digest import Digest
from ...system.networks import Address, Region, find_region
from .. import layout
from .blocking_bucket import BucketAddress
from .bucket import Bucket, BucketThreadPool
from .bucket_stores import SIGNED_URL_LIFETIME, BucketContentStore


@frozen
class NearBucket:
    """A bucket, or a CDN in front of one, that has blobs at the paths of ``layout``.

    :ivar contents: looks blobs up by HEAD, caches the results, and signs the addresses of a bucket.
    :ivar url: the base address of a CDN, whose addresses are not signed; None for a bucket.
    """

    region: Region
    contents: BucketContentStore
    url: str | None = None

    async def locate(self, digest: Digest, size: int) -> str | None:
        """Return the address of a blob; None if it is not there, or that cannot be found out."""
        if self.url is None:
            return await self.contents.locate(digest, size)
        is_there = await self.contents.is_available(digest, size)
        return f"{self.url}/{layout.data(digest)}" if is_there else None


@frozen
class NearBuckets:
    """The buckets and CDNs near clients, and the service that runs their threads."""

    buckets: Sequence[NearBucket]
    service: Service

    def find(self, address: Address) -> NearBucket | None:
        """Return the one whose region has the client."""
        region = find_region(address, [each.region for each in self.buckets])
        return next((each for each in self.buckets if each.region is region), None)


def open_near_buckets(addresses: Sequence[tuple[Region, BucketAddress]], reactor: Any) -> NearBuckets:
    """Open the buckets and CDNs; nothing is requested yet."""
    service, buckets = MultiService(), []
    for region, address in addresses:
        threads = BucketThreadPool()
        threads.setServiceParent(service)
        in_thread = run_in_pool(reactor, threads.pool)
        bucket = Bucket(str(address), address.open, reactor, in_thread, "clients are not sent there")
        contents = BucketContentStore(bucket, reactor, SIGNED_URL_LIFETIME)
        buckets.append(NearBucket(region, contents, address.url.rstrip("/") if address.is_cdn else None))
    return NearBuckets(buckets, service)
