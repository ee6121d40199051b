"""The accounts of the tests' registries, and their rights."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: What everybody may pull.
PUBLIC = ("library/*", "public/*")


@dataclass(frozen=True)
class Account:
    """Somebody with a password, and the patterns of the repositories open to them."""

    name: str
    password: str
    pull: tuple[str, ...] = ()
    push: tuple[str, ...] = ()

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header that names this account."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()


ALICE = Account("alice", "alice-secret", pull=("private/*", "team/*"))
BOB = Account("bob", "bob-secret", pull=("team/*",))
PUBLISHER = Account("publisher", "publisher-secret", pull=("*",), push=("*",))
ACCOUNTS = (ALICE, BOB, PUBLISHER)


def account_of(name: str, password: str) -> Account | None:
    """The account with this name and password."""
    return next((each for each in ACCOUNTS if (each.name, each.password) == (name, password)), None)


def account_of_basic(authorization: str) -> Account | None:
    """The account that an ``Authorization`` header names rightly."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return account_of(name, password) if scheme.lower() == "basic" else None


def granted(account: Account | None, repository: str, actions: Iterable[str]) -> list[str]:
    """The *actions* that *account*, or anybody, may do in *repository*."""
    pull = PUBLIC + (account.pull if account else ())
    push = account.push if account else ()
    allowed = {"pull": pull, "push": push, "delete": push, "*": push}
    return [
        action
        for action in actions
        if any(fnmatchcase(repository, pattern) for pattern in allowed.get(action, ()))
    ]
