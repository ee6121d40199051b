"""Registers ``twistd dockmirror``."""

from twisted.application.service import ServiceMaker

dockmirror = ServiceMaker(
    "dockmirror", "dockmirror.app.service", "A mirror in front of every container registry.", "dockmirror"
)
