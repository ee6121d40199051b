"""docker-registry in the ways that registries in the world guard their images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accounts import ALICE, PUBLISHER, Account
from .authority import Authority, Certificate
from .images import Image
from .plain import PlainClient
from .process import Process, free_port, listens
from .tokens import ISSUER, SERVICE, Tokens

#: The password file of the Basic registry; the hash (bcrypt) is that of Alice's.
_HTPASSWD = "alice:$2b$04$Q0oRLs9q5eQHtnhVt8c80eO5JzttsksEi76.YDCRsELvhrg/UHoIi\n"
_ACCESS = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d+) (?P<size>\d+)')


@dataclass(frozen=True)
class Access:
    """One line of a registry's access log."""

    method: str
    path: str
    status: int
    size: int


class Registry(Process):
    """A docker-registry process with its storage, configuration and logs under one directory.

    :param storage: what somebody else has stored, to be served and not changed.
    :param bucket: the settings of distribution's s3 driver, where that is what was stored in.
    """

    def __init__(
        self,
        directory: Path,
        auth: dict[str, Any] | None = None,
        publisher: Account | None = None,
        tls: Certificate | None = None,
        authority: Authority | None = None,
        storage: Path | None = None,
        bucket: dict[str, Any] | None = None,
    ) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.storage = storage or directory / "storage"
        self._bucket = bucket
        self._readonly = storage is not None or bucket is not None
        self._access_log = directory / "access.log"
        self._tls = tls
        self.plain = PlainClient(self.url, publisher, authority=authority.certificate if authority else None)
        configuration = directory / "config.yml"
        configuration.write_text(json.dumps(self._configuration(auth)))  # JSON is YAML
        super().__init__(
            ["docker-registry", "serve", str(configuration)],
            log=self._access_log,
            errors=directory / "registry.log",
            ready=lambda: listens(self.host, self.port),
        )

    @property
    def url(self) -> str:
        """The origin of the registry."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def netloc(self) -> str:
        """Host and port, as the first part of an image's name."""
        return f"{self.host}:{self.port}"

    def push(self, repository: str, image: Image, *tags: str) -> None:
        """Put *image* into the registry."""
        self.plain.push(repository, image, *tags)

    def accesses(self, method: str | None = None, path: str = "") -> list[Access]:
        """The requests answered so far whose path contains *path*."""
        found = [
            Access(each["method"], each["path"], int(each["status"]), int(each["size"]))
            for each in _ACCESS.finditer(self._access_log.read_text())
        ]
        return [each for each in found if method in (None, each.method) and path in each.path]

    def blob(self, digest: str) -> Path:
        """The file in which the registry keeps a blob's bytes."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def _configuration(self, auth: dict[str, Any] | None) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": self.netloc}
        if self._tls:
            http["tls"] = {"certificate": str(self._tls.certificate), "key": str(self._tls.key)}
        return {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                **(
                    {"s3": self._bucket}
                    if self._bucket
                    else {"filesystem": {"rootdirectory": str(self.storage)}}
                ),
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": self._readonly}},
            },
            "http": http,
            **({"auth": auth} if auth else {}),
        }


def token_registry(directory: Path, authority: Authority, tokens: Tokens) -> Registry:
    """A registry that takes the tokens of *tokens*."""
    auth = {
        "realm": tokens.realm,
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(authority.certificate),
    }
    return Registry(directory, {"token": auth}, publisher=PUBLISHER)


def basic_registry(directory: Path) -> Registry:
    """A registry that asks for a name and password with each request."""
    file = directory / "htpasswd"
    file.write_text(_HTPASSWD)
    auth = {"htpasswd": {"realm": "registry of the tests", "path": str(file)}}
    return Registry(directory, auth, publisher=ALICE)


def tls_registry(directory: Path, authority: Authority, *names: str) -> Registry:
    """A registry open to everybody, by https, whose certificate is for its address and *names*."""
    return Registry(directory, tls=authority.issue("127.0.0.1", *names), authority=authority)
