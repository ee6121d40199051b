"""Buckets and CDNs near clients."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address, ip_network
from urllib.parse import parse_qs, urlsplit

import obstore
import pytest
from obstore.exceptions import UnauthenticatedError
from obstore.store import MemoryStore, ObjectStore
from twisted.internet.task import Clock

from dockmirror.oci.digest import Digest
from dockmirror.store import layout
from dockmirror.store.bucket.blocking_bucket import BucketAddress
from dockmirror.store.bucket.bucket import Bucket, BucketUnavailable
from dockmirror.store.bucket.bucket_stores import open_near_buckets
from dockmirror.system.networks import Region

from ...answering import now
from ..threads import inline
from .machines import bucket

EU = Region("eu", (ip_network("10.1.0.0/16"), ip_network("2001:db8::/32")))
ALL = Region("all", (ip_network("10.0.0.0/8"),))
ADDRESSES = [(EU, BucketAddress("s3://eu/x")), (ALL, BucketAddress("https://cdn.example/y/"))]


@pytest.mark.parametrize(
    ("client", "region"),
    [("10.1.2.3", "eu"), ("2001:db8::1", "eu"), ("10.2.3.4", "all"), ("192.0.2.1", None)],
)
def test_the_first_region_with_a_client_holds(client: str, region: str | None) -> None:
    found = open_near_buckets(ADDRESSES, Clock()).find(ip_address(client))
    assert (found.region.name if found else None) == region


def test_a_cdn_has_a_base_address_and_a_bucket_none() -> None:
    """Nothing is requested from either before a client is to be redirected."""
    near = open_near_buckets(ADDRESSES, Clock())
    assert [each.url for each in near.buckets] == [None, "https://cdn.example/y"]


def test_a_cdn_need_not_give_out_the_format_of_the_bucket() -> None:
    """The mirror never writes there; only buckets of mirrors are checked."""
    store = MemoryStore()
    obstore.put(store, str(layout.FORMAT), b"999")
    near, clock = bucket(Clock(), store), Clock()
    with pytest.raises(OSError, match="format '999' of a newer dockmirror"):
        now(near.get(layout.USAGE_COUNTER))
    copy = Bucket("a copy", lambda: store, clock, inline)
    assert now(copy.get(layout.USAGE_COUNTER)) is None


def test_a_bucket_that_cannot_sign_sends_nobody_away() -> None:
    """As with credentials that have expired since the bucket was asked about a blob."""

    def refuse() -> ObjectStore:
        raise UnauthenticatedError("no credentials\n\nDebug")

    digest, clock = Digest.of(b"near"), Clock()
    expired = Bucket("a copy", refuse, clock, inline)
    with pytest.raises(BucketUnavailable, match="a copy: no credentials"):
        now(expired.sign_url(layout.data(digest), 60.0))


def test_addresses_are_signed_for_the_region_of_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "of-the-tests")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for region in ("us-east-1", "eu-central-1"):
        store = BucketAddress("s3://mirrors/x", region=None if region.startswith("eu") else region).open()
        signed = urlsplit(obstore.sign(store, "GET", "key", timedelta(seconds=60)))  # type: ignore[call-overload]
        assert f"/{region}/s3/" in parse_qs(signed.query)["X-Amz-Credential"][0]
