"""An account whose secret a credential helper has, as Docker's command line asks for it.

Source: the protocol of docker-credential-helpers: ``docker-credential-NAME get`` is told a server's address
and writes JSON; where it has nothing for it, it ends with another status than 0.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..concurrency.single_flight import SingleFlight
from ..concurrency.ttl_cache import TTLCache
from ..interfaces import IAccount
from ..oci.credentials import Credentials
from ..oci.errors import Unavailable
from ..oci.token import Login
from ..system.external_program import ProcessFailed, ProcessResult

KEPT = 600.0
"""Seconds for which what it gave is used; registries' secrets live longer."""
REST = 60.0
"""Seconds after a failure until it is asked again."""
IDENTITY = "<token>"
"""The name that says that the secret is an identity token."""

_log = Logger()


@implementer(IAccount)
class CredentialHelper:
    """One helper's account at one server; who needs its login waits for one process with all others.

    What the helper writes may hold a secret, also where it has failed, and is never shown.

    :param upstream: its name in the settings, for messages.
    :param server: the address by which the helper knows the server.
    :param ask: runs the helper with this as its input; raises ``ProcessFailed``.
    """

    def __init__(
        self,
        upstream: str,
        server: str,
        ask: Callable[[bytes], Awaitable[ProcessResult]],
        clock: IReactorTime,
    ) -> None:
        self._upstream = upstream
        self._server = server
        self._ask = ask
        self._kept: TTLCache[str, Login] = TTLCache(clock, 1)
        self._failed: TTLCache[str, bool] = TTLCache(clock, 1)
        self._joined: SingleFlight[str, Login] = SingleFlight()

    async def login(self) -> Login:
        """See ``IAccount``."""
        if self._failed.get(self._server):
            raise self._unavailable()
        return self._kept.get(self._server) or await self._joined.get(self._server, self._obtain)

    def refused(self, login: Login) -> None:
        """See ``IAccount``; the helper is asked once more."""
        if self._kept.get(self._server) == login:
            self._kept.drop(self._server)

    async def _obtain(self) -> Login:
        try:
            login = login_of(await self._ask(self._server.encode()))
        except ProcessFailed as error:
            why = f"the credential helper of {self._upstream} gives nothing for {self._server}: it {error}"
            _log.warn("{why}", why=why)
            self._failed.put(self._server, True, REST)
            raise self._unavailable() from None
        self._kept.put(self._server, login, KEPT)
        return login

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"the mirror's credential helper for {self._upstream} gives it no login")


def login_of(ended: ProcessResult) -> Login:
    """What a helper answered.

    :raises Unanswered: when that is no login, saying nothing of what was written.
    """
    if ended.code != 0:
        raise ProcessFailed("was killed" if ended.code is None else f"ended with status {ended.code}")
    try:
        fields = json.loads(ended.output)
        login = _login(fields["Username"], fields["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        login = None
    if login is None:
        raise ProcessFailed("wrote something else than a name and a secret")
    return login


def _login(name: object, secret: object) -> Login | None:
    if not isinstance(name, str) or not isinstance(secret, str) or not name or not secret or ":" in name:
        return None
    if not (name + secret).isprintable():
        return None
    return Login(identity_token=secret) if name == IDENTITY else Login(Credentials.basic(name, secret))
