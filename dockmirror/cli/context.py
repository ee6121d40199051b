"""What every command is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from ..config.load import SettingsSource, settings_of, sources
from ..config.settings import Settings


@frozen
class Context:
    """Where the settings stand that the mirror runs with."""

    options: Mapping[str, Any]
    environ: Mapping[str, str]

    @property
    def said(self) -> Sequence[SettingsSource]:
        """All that is said, and where.

        :raises ConfigurationError: when a file is none.
        """
        return sources(self.options, self.environ)

    @property
    def settings(self) -> Settings:
        """What is in force.

        :raises ConfigurationError: when it is wrong.
        """
        return settings_of(self.said)
