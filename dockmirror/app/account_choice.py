"""The choice among the mirror's accounts at one upstream, by repository."""

from __future__ import annotations

import hashlib

from ..config.settings import UpstreamSettings
from ..oci.pull_rule import PullRule
from ..oci.reference import Repository
from ..oci.request import RegistryRequest, Tags, repository_of

REST = ""
"""The name of the account, or of none, for the repositories that no other account is for."""


class AccountChoice:
    """Chooses one of the mirror's accounts at an upstream for each of its repositories.

    :param name: the upstream's name in the settings.
    :ivar names: the names of all accounts but ``REST``.
    """

    def __init__(self, name: str, upstream: UpstreamSettings) -> None:
        self.names = tuple(account.name for account in upstream.accounts)
        self._rules = [
            (account.name, [PullRule.parse(pattern) for pattern in account.repositories])
            for account in upstream.accounts
        ]
        identities = {account.name: account.identity for account in upstream.accounts}
        self._partitions = {
            account: f"{name}+{hashlib.sha256(identity.encode()).hexdigest()[:16]}" if identity else name
            for account, identity in {REST: upstream.account, **identities}.items()
        }
        self._has_rest = upstream.account is not None

    def choose(self, repository: Repository | None) -> str:
        """Return the name of the first account whose patterns match.

        :param repository: None for what concerns the whole registry, such as its catalog.
        """
        if repository is None:
            return REST
        target = Tags(repository)
        matching = (name for name, rules in self._rules if any(r.matches_repository(target) for r in rules))
        return next(matching, REST)

    def choose_for(self, request: RegistryRequest) -> str:
        """Return the name of the account for the repository of a request."""
        return self.choose(repository_of(request.target))

    def has_account(self, repository: Repository) -> bool:
        """Return whether the mirror asks for a repository with an account of its own."""
        return self._has_rest or self.choose(repository) != REST

    def cache_partition(self, repository: Repository | None = None) -> str:
        """Return the cache namespace of a repository: one for each account, which may see other content."""
        return self._partitions[self.choose(repository)]
