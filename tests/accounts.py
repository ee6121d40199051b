"""Accounts that do as a test tells them."""

from __future__ import annotations

from zope.interface import implementer

from dockmirror.interfaces import IAccount
from dockmirror.oci.token import Login


@implementer(IAccount)
class Changing:
    """An account that has the next of these logins once one was refused, and stays with the last.

    :ivar asked: how often it was asked for one.
    """

    def __init__(self, *logins: Login) -> None:
        self.asked = 0
        self._logins = list(logins)

    async def login(self) -> Login:
        self.asked += 1
        return self._logins[0]

    def forget(self, login: Login) -> None:
        assert login == self._logins[0]
        if len(self._logins) > 1:
            del self._logins[0]
