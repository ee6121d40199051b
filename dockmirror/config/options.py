"""The command line of ``twistd dockmirror``."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version

from twisted.python import usage

from .load import load_found
from .settings import ConfigurationError


class Options(usage.Options):
    """The command line of ``twistd dockmirror``; each option has a key of the same name in the file.

    :ivar read: loads the settings again, since the file may have changed.
    """

    synopsis = "[options]"
    longdesc = "A mirror in front of every container registry."
    optParameters = [
        ["config", "c", None, "Settings file, in TOML. Default: /etc/dockmirror.toml if it exists."],
        [
            "domain",
            "d",
            None,
            "Host name of the mirror; upstreams are hosts below it. Default: localhost.",
        ],
        ["hosts", None, None, "Pattern of virtual host names. Default: {name}.{domain}."],
        [
            "operations",
            None,
            None,
            "Endpoint of metrics and health checks, or none. Default: port 9464, loopback.",
        ],
        ["acme", None, None, "Your e-mail address; obtains certificates from a public authority by ACME."],
        ["default", None, None, "Upstream for requests to unknown host names."],
        ["cache", None, None, "Directory of the cache."],
        ["cache-size", None, None, "Largest size of the cache, such as 50GB or 20%; 0 turns it off."],
        ["min-free", None, None, "Space of the file system to keep free. Default: 20%, at most 10 GB."],
        ["store", None, None, "Bucket that several mirrors share, such as s3://bucket/prefix."],
        ["tag-ttl", None, None, "Time for which a public tag is fresh, such as 10m. Default: 60s."],
        ["workers", None, None, "Number of worker processes. Default: one for each core, at most 4."],
        ["grace", None, None, "Time that running transfers have to finish at the end. Default: 5m."],
        ["log-format", None, None, "Log format: text or json."],
    ]

    optFlags = [
        ["keep-deleted-upstream", None, "Keep serving images that were deleted upstream."],
        ["offline", None, "Ask no registry; serve what the cache holds."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"], self["upstream"], self["networks"] = [], [], []

    def opt_version(self) -> None:
        """Show the version of dockmirror and exit."""
        print(f"dockmirror {version('dockmirror')}")
        raise SystemExit(0)

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this port, address or endpoint, such as 8080, 127.0.0.1:8080, https:443 or
        unix:/run/dockmirror.sock; repeatable. Default: port 8080 on all addresses."""
        self["listen"].append(endpoint)

    def opt_upstream(self, pair: str) -> None:
        """Add an upstream, or replace its url, by NAME=URL; repeatable."""
        self["upstream"].append(pair)

    def opt_networks(self, network: str) -> None:
        """Allow clients of this network: a CIDR, "private" (the default) or "public"; repeatable."""
        self["networks"].append(network)

    def postOptions(self) -> None:
        """:raises SystemExit: when a setting is invalid; for a usage error twistd prints all options."""
        options = {key.replace("-", "_"): value for key, value in self.items()}
        self.environ = dict(os.environ)
        self.read = partial(load_found, options, self.environ)
        try:
            self.read()
        except ConfigurationError as error:
            raise SystemExit(f"dockmirror: {error}") from None
