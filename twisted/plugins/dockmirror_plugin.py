"""Registers ``twistd dockmirror``."""

from typing import Any

from twisted.application.service import ServiceMaker

from dockmirror.system.garbage_collector import young_collections


class _QuickServiceMaker(ServiceMaker):
    """Imports the service, which asking for its options does first, without searches for all garbage."""

    @property
    def options(self) -> Any:
        with young_collections():
            return super().options


dockmirror = _QuickServiceMaker(
    "dockmirror", "dockmirror.app.service", "A mirror in front of every container registry.", "dockmirror"
)
