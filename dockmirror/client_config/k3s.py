"""k3s and RKE2, which write their containerd's files of this one.

https://docs.k3s.io/installation/private-registry
"""

from __future__ import annotations

import json

from .mirror_address import MirrorAddress
from .snippet import ClientConfig, Snippet


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    mirrors = "".join(
        f"  {json.dumps(registry.name)}:\n    endpoint:\n      - {json.dumps(mirror.url)}\n"
        for registry in mirror.registries
    )
    return [Snippet(f"mirrors:\n{mirrors}", "/etc/rancher/k3s/registries.yaml", whole=True)]


K3S = ClientConfig("k3s", "k3s", _snippets, "systemctl restart k3s")
