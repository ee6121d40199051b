"""kaniko: options of its executor.

``--registry-map`` came with 1.22, and with paths in 1.23.  https://github.com/GoogleContainerTools/kaniko#--registry-map
"""

from __future__ import annotations

from .mirror_address import HUB, MirrorAddress
from .snippet import ClientConfig, Snippet


def _snippets(mirror: MirrorAddress) -> list[Snippet]:
    mapped = [each for each in mirror.registries if each.name != HUB]
    options = [f"--registry-mirror={mirror.host}"]
    if mapped:
        pairs = ";".join(f"{each.name}={mirror.by_path(each)}" for each in mapped)
        options.append(f"--registry-map='{pairs}'")
    if mirror.plain:
        options.append(f"--insecure-registry={mirror.host}")
    return [Snippet(" \\\n".join(options) + "\n")]


KANIKO = ClientConfig("kaniko", "kaniko", _snippets)
