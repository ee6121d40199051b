"""Where a bucket is, and how it is reached."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "1h"}
"""What hangs is given up by whoever waits for it, sooner; of these only the thread hears."""
_RETRY = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}


def is_available() -> bool:
    """Whether what speaks to object stores is installed: it is an extra."""
    return find_spec("obstore") is not None


@frozen
class BucketAddress:
    """A bucket and a prefix in it, such as ``s3://bucket/prefix``.

    Credentials are those that obstore finds by itself: in the environment, or of the machine.

    :ivar endpoint: of an S3 server that is not Amazon's.
    """

    url: str
    endpoint: str | None = None

    def __str__(self) -> str:
        return self.url

    def open(self) -> ObjectStore:
        """What speaks to it; nothing is asked yet.

        It has threads of its own, which no fork of this process would have.
        """
        from obstore.store import from_url

        client: Any = dict(_CLIENT)
        settings: Any = {}
        if self.endpoint is not None:
            settings["endpoint"] = self.endpoint
            client["allow_http"] = self.endpoint.startswith("http://")
        store: ObjectStore = from_url(self.url, client_options=client, retry_config=_RETRY, **settings)  # type: ignore[call-overload]
        return store
