"""Registers ``twistd dockmirror``."""

from typing import Any

from twisted.application.service import ServiceMaker

from dockmirror.system.garbage_collector import paused_collector


class _QuickServiceMaker(ServiceMaker):
    """Imports the service, which asking for its options does first, with the garbage collector paused."""

    @property
    def options(self) -> Any:
        with paused_collector():
            return super().options


dockmirror = _QuickServiceMaker(
    "dockmirror", "dockmirror.app.service", "A mirror in front of every container registry.", "dockmirror"
)
