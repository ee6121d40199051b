"""The command line of ``twistd dockmirror``."""

from __future__ import annotations

import os
from functools import partial

from twisted.python import usage

from .load import load
from .settings import ConfigurationError


class Options(usage.Options):
    """The command line of ``twistd dockmirror``: every option has a key of the same name in the file.

    :ivar read: gives the settings; the file may have changed since.
    """

    synopsis = "[options]"
    longdesc = "A mirror in front of every container registry."
    optParameters = [
        ["config", "c", None, "A TOML file of settings."],
        ["domain", "d", None, "The mirror's own host; each upstream is a host below it. Default: localhost."],
        ["hosts", None, None, "The pattern of virtual hosts. Default: {name}.{domain}."],
        [
            "operations",
            None,
            None,
            "Where metrics and health are told, or none. Default: port 9464, loopback.",
        ],
        ["acme", None, None, "Your e-mail address: a public authority certifies the mirror's names."],
        ["default", None, None, "The upstream that every unknown host is."],
        ["cache", None, None, "The directory in which what was fetched is kept."],
        ["cache-size", None, None, "How much of it, such as 50GB or 20%; 0 keeps nothing."],
        ["min-free", None, None, "How much of the file system stays free. Default: 20%."],
        ["store", None, None, "A bucket behind it that mirrors share, such as s3://bucket/prefix."],
        ["tag-ttl", None, None, "Seconds for which a public tag is believed without asking. Default: 60."],
        ["workers", None, None, "How many processes serve. Default: one for each core, at most 4."],
        ["grace", None, None, "Seconds for running transfers to finish at SIGTERM. Default: 300."],
        ["log-format", None, None, "text or json."],
    ]

    optFlags = [["keep-vanished", None, "Serve on what the upstream has no more."]]

    def __init__(self) -> None:
        super().__init__()
        self["listen"], self["upstream"], self["networks"] = [], [], []

    def opt_listen(self, endpoint: str) -> None:
        """A server endpoint, such as tcp:8080; repeatable. Default: port 8080 on all addresses."""
        self["listen"].append(endpoint)

    def opt_upstream(self, pair: str) -> None:
        """NAME=URL: adds an upstream, or replaces the url of one; repeatable."""
        self["upstream"].append(pair)

    def opt_networks(self, network: str) -> None:
        """Who may use the mirror: a CIDR, "private" (the default) or "public"; repeatable."""
        self["networks"].append(network)

    def postOptions(self) -> None:
        """:raises SystemExit: when a setting cannot be; twistd would print all options before it says so."""
        given = {key.replace("-", "_"): value for key, value in self.items()}
        self.environ = dict(os.environ)
        self.read = partial(load, given, self.environ)
        try:
            self.read()
        except ConfigurationError as error:
            raise SystemExit(f"dockmirror: {error}") from None
