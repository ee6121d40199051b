"""The mirror's own host, asked for images by the names that the store has of them."""

from __future__ import annotations

from functools import partial

from ..config.settings import Settings
from ..interfaces import IRegistry
from ..middleware.names import NameRewrite
from .naming import name_at_own_host


def ask_by_store_names(registry: IRegistry, settings: Settings) -> IRegistry:
    """Return the registry of a mirror's own host, asked for repositories by the names in the store.

    :param settings: those of the mirror, which rewrites the names that it is asked for.
    """
    return NameRewrite(registry, partial(name_at_own_host, settings))
