"""``dockmirror usage``: what takes up how much."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import click

from ..app.cache import make_budget
from ..oci.digest import Digest
from ..store import layout
from ..store.eviction import store_files
from ..store.held_images import HeldImages
from .context import Context
from .output import as_json as json_option
from .output import show_json, show_table, size
from .store_access import store_of


@click.command("usage", short_help="How much each registry and repository takes up.")
@json_option
@click.pass_obj
def usage(context: Context, as_json: bool) -> None:
    """How many bytes each registry and repository takes up, and how much there may be.

    What several repositories have is held once: "shared" is as much of the size as others have, too, and is
    counted once for a registry, and once in all.

    Exit status: 0, or 1 where there is no cache.
    """
    settings = context.settings
    root = store_of(settings)
    sizes = {digest: stored.size for digest, stored in store_files.iter_contents(root)}
    holdings = HeldImages(root)
    having = {
        str(each): {*holdings.list_manifests(each), *holdings.list_blobs(each)} & sizes.keys()
        for each in holdings.list_repositories()
    }
    by_registry: dict[str, set[Digest]] = {}
    for name, contents in having.items():
        by_registry.setdefault(name.partition("/")[0], set()).update(contents)
    registries, repositories = _counted(by_registry, sizes), _counted(having, sizes)
    status, limit = os.statvfs(root), make_budget(root, settings)
    totals = {
        "contents": sum(sizes.values()),
        "of no repository": sum(sizes[each] for each in sizes.keys() - set().union(*having.values())),
        "on their way in": sum(
            stored.size for path, stored in store_files.iter_downloads(root) if path.suffix != layout.SIZE
        ),
        "lists and notes": sum(stored.size for _, stored in store_files.iter_documents(root)),
        "budget (cache_size)": limit.size,
        "free on the disk": status.f_bavail * status.f_frsize,
        "to be kept free (min_free)": limit.free_bytes,
    }
    if as_json:
        show_json({"registries": registries, "repositories": repositories, "totals": totals})
        return
    for title, counted in (("registry", registries), ("repository", repositories)):
        rows = sorted(counted.items(), key=lambda item: -item[1]["size"])
        cells = ((name, size(c["size"]), size(c["shared"]), str(c["contents"])) for name, c in rows)
        show_table((title, "size", "shared", "contents"), cells, right=("size", "shared", "contents"))
        click.echo()
    show_table(("in all", "bytes"), ((name, size(count)) for name, count in totals.items()), right=("bytes",))


def _counted(having: Mapping[str, set[Digest]], sizes: Mapping[Digest, int]) -> dict[str, dict[str, int]]:
    times = Counter(digest for contents in having.values() for digest in contents)
    return {
        name: {
            "size": sum(sizes[each] for each in contents),
            "shared": sum(sizes[each] for each in contents if times[each] > 1),
            "contents": len(contents),
        }
        for name, contents in having.items()
    }
