"""containerd, and Kubernetes on it: a ``hosts.toml`` for each registry.

The mirror is told by ``ns`` which registry is meant.  https://github.com/containerd/containerd/blob/main/docs/hosts.md
"""

from __future__ import annotations

from .mirror_address import MirrorAddress, MirroredRegistry
from .snippet import ClientConfig, Snippet

DIRECTORY = "/etc/containerd/certs.d"
_REFERRERS = """\
  # containerd 2.2 and newer: add "referrers", or they ask the server above for signatures and SBOMs,
  # past the mirror. Older ones know no such capability, and do not read this file then.
"""


def _hosts(mirror: MirrorAddress, registry: MirroredRegistry) -> Snippet:
    host = f'[host."{mirror.url}"]\n{_REFERRERS}  capabilities = ["pull", "resolve"]\n'
    text = f'server = "{registry.server}"\n\n{host}'
    path = f"{DIRECTORY}/{registry.name}/hosts.toml"
    return Snippet(text, path, registry.name, whole=True)


def _each(mirror: MirrorAddress) -> list[Snippet]:
    return [_hosts(mirror, registry) for registry in mirror.registries]


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    names = " \\\n  ".join(registry.name for registry in mirror.registries)
    loop = (
        f"for registry in \\\n  {names}\ndo\n"
        f'  mkdir -p "{DIRECTORY}/$registry"\n'
        f'  curl -fsS "{mirror.url}/client/containerd/$registry" > "{DIRECTORY}/$registry/hosts.toml"\n'
        "done\n"
    )
    return [*_each(mirror)[:1], Snippet(loop, name="all"), Snippet(_CONFIG, _FILE, "config")]


_FILE = "/etc/containerd/config.toml"
_CONFIG = f"""\
# containerd 1
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{DIRECTORY}"

# containerd 2
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{DIRECTORY}"
"""
CONTAINERD = ClientConfig("containerd", "containerd, Kubernetes", _snippets, more=_each)
