"""The program of a worker process: ``python -m dockmirror.app.worker_main``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..system.garbage_collector import young_collections


def main(arguments: Sequence[str]) -> None:
    """Import and run a worker."""
    with young_collections():
        from . import worker
    worker.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
