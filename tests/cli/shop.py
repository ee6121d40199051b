"""A store with images, and the command that works on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from dockmirror.cli.main import main
from dockmirror.interfaces import ContentKind
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout, store_files
from dockmirror.store.store_directory import prepare_directory

from ..archive.packing import index, manifest

USED = 1_790_000_000.0
NGINX = Repository("docker.io/library/nginx")
OTHER = Repository("ghcr.io/o/r")
BASE, CONFIG, LAYER = b"base" * 300, b'{"os":"linux"}', b"layer" * 1000
AMD, ARM = manifest(CONFIG, BASE, LAYER), manifest(b'{"os":"arm"}', BASE)
INDEX = index(amd64=AMD, arm64=ARM)


def run(
    *arguments: str, code: int = 0, environ: Mapping[str, str | None] | None = None, **more: Any
) -> Result:
    """Run the command, check its exit status, and return the result."""
    variables = {"DOCKMIRROR_CONFIG": None, **(environ or {})}
    result = CliRunner().invoke(main, [*arguments], env=variables, **more)
    assert result.exit_code == code, (result.output, result.exception)
    return result


class Shop:
    """A store in its own directory.

    :ivar environ: variables for each command.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ: dict[str, str] = {}
        prepare_directory(root)

    def blob(self, repository: Repository, data: bytes, kind: ContentKind = ContentKind.BLOB) -> Digest:
        """Add a content."""
        digest = Digest.of(data)
        store_files.add_content(self.root, digest, [data])
        os.utime(self.path(digest), (USED, USED))
        store_files.link_content(self.root, repository, digest, kind, USED)
        return digest

    def image(
        self, repository: Repository, tag: str, root: bytes, *parts: bytes, manifests: Sequence[bytes] = ()
    ) -> None:
        """Add an image."""
        for part in parts:
            self.blob(repository, part)
        for each in (*manifests, root):
            self.blob(repository, each, ContentKind.MANIFEST)
        if tag:
            store_files.set_tag(self.root, repository, Tag(tag), Digest.of(root), USED)

    def path(self, digest: Digest) -> Path:
        """Return the path of a content's file."""
        return self.root / layout.data(digest)

    def run(
        self, *arguments: str, code: int = 0, environ: Mapping[str, str | None] | None = None, **more: Any
    ) -> Result:
        """Run the command, check its exit status, and return the result."""
        own = {
            "DOCKMIRROR_CACHE": str(self.root), "STATE_DIRECTORY": str(self.root.with_name("state")),
            "DOCKMIRROR_MIN_FREE": "0B", "COLUMNS": "80", "TZ": "UTC",
        }  # fmt: skip
        return run(*arguments, code=code, environ={**own, **self.environ, **(environ or {})}, **more)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run the command with ``--json``, and return the parsed output."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


def stocked(root: Path) -> Shop:
    """Store an index with one complete platform, an image of it with its own tag, and one without a tag."""
    shop = Shop(root)
    shop.image(NGINX, "latest", INDEX, BASE, CONFIG, LAYER, manifests=[AMD])
    shop.image(NGINX, "1.27", AMD)
    shop.image(OTHER, "", manifest(CONFIG, BASE), CONFIG, BASE)
    return shop
