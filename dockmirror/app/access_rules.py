"""Who is let in, and how far, of these settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from ..config.settings import ConfigurationError, Settings
from ..http.access import NetworkAccess
from ..http.limits import HttpLimits
from ..system.networks import Network, parse_networks
from ..system.shared_digests import SharedDigests
from ..users.htpasswd import Htpasswd
from ..users.signing_keys import read_keys
from ..users.user_tokens import UserTokens
from ..web.auth import AuthFilter
from ..web.failed_logins import FailedLogins
from ..web.rate_counters import RateCounters
from ..web.rate_limiter import RateLimiter
from ..web.shared_tables import SharedTables
from ..web.site import NetworkFilter

InThread = Callable[[Callable[[], bool]], Awaitable[bool]]


def apply_access_rules(
    settings: Settings, resource: IResource, clock: IReactorTime, in_thread: InThread, memory: SharedTables
) -> IResource:
    """What stands in front of the resource: first the networks, then how much each may have, then names.

    :param in_thread: where passwords are looked at, which takes long on purpose.
    :param memory: of what each network has had, and how often it has failed to log in.
    :raises ConfigurationError: when a file of names or keys is of no use.
    """
    access = settings.access
    if access.htpasswd is not None:
        resource = _members(settings, resource, clock, in_thread, memory)
    if access.requests is not None or access.bytes is not None:
        ledger = RateCounters(memory.ledger)
        resource = RateLimiter(resource, clock, ledger, access.requests, access.bytes, access.window)
    return NetworkFilter(resource, _networks(settings))


def http_limits(settings: Settings) -> HttpLimits:
    """How long a client may take."""
    access = settings.access
    return HttpLimits(
        head_seconds=access.head_timeout,
        body_seconds=access.body_timeout,
        idle_seconds=access.idle_timeout,
        stall_seconds=access.stall_timeout,
    )


def _networks(settings: Settings) -> NetworkAccess:
    return NetworkAccess(
        tuple(parse_networks(settings.networks)), proxies(settings), unix="unix" in settings.trust_proxy
    )


def proxies(settings: Settings) -> tuple[Network, ...]:
    """Return the networks of the proxies that are trusted."""
    return tuple(parse_networks(name for name in settings.trust_proxy if name != "unix"))


def _members(
    settings: Settings, resource: IResource, clock: IReactorTime, in_thread: InThread, memory: SharedTables
) -> IResource:
    htpasswd = settings.access.htpasswd
    assert htpasswd is not None
    try:
        checker = Htpasswd(htpasswd, in_thread, SharedDigests(memory.verified, clock.seconds))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"access.htpasswd: {error}") from None
    tokens = UserTokens(keys_of(settings), clock)
    return AuthFilter(resource, checker, tokens, FailedLogins(memory.guesses, clock))


def keys_of(settings: Settings) -> Sequence[bytes]:
    """The keys by which the mirror knows again what it has given to clients.

    :raises ConfigurationError: when the file of keys is of no use.
    """
    assert settings.access.keys is not None
    try:
        return read_keys(settings.access.keys)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"access.keys: {error}") from None
