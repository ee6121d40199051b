"""The mirror's own accounts at its upstreams: the choice among them by repository, and their passwords."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from ..config.known_registries import KNOWN
from ..config.load import PASSWORD_PREFIX, PREFIX
from ..config.settings import AccountSettings, ConfigurationError, Settings, UpstreamSettings
from ..interfaces import IAccount
from ..oci.pull_rule import PullRule
from ..oci.request import RegistryRequest, Repository, Tags, repository_of
from ..oci.token import Credentials, Login
from ..system.external_program import ProcessResult

REST = ""
"""The name of the account, or of none, for the repositories that no other account is for."""
RunProgram = Callable[[Sequence[str], Mapping[str, str], bytes], Awaitable[ProcessResult]]
"""Runs a command in an environment, with some input."""
Accounts = Mapping[str, IAccount]
"""The accounts at one upstream, by their names."""
_HUB_SERVER = "https://index.docker.io/v1/"
"""Docker Hub's address among credential helpers; they know all other registries by host and port."""


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
        base = _partition_of(name, upstream.canonical)
        self._partitions = {
            account: f"{base}+{hashlib.sha256(identity.encode()).hexdigest()[:16]}" if identity else base
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


def _partition_of(name: str, registry: str) -> str:
    """Return the cache namespace of an upstream.

    A well-known registry has the same name on all mirrors.  Any other name may stand for another registry on
    a mirror that shares the bucket, or in earlier settings; what is public there may be private here.
    """
    is_known = any(known.name == name and known.registry == registry for known in KNOWN)
    return name if is_known else f"{name}@{registry}"


@frozen
class _LoginSettings:
    """The part of the settings that one account logs in by.

    :ivar key: the table's key.
    :ivar variable: the variable that may hold the password.
    """

    upstream: str
    account: str
    key: str
    variable: str
    settings: UpstreamSettings | AccountSettings


def _each_login(settings: Settings) -> Iterator[_LoginSettings]:
    for name, upstream in settings.upstreams.items():
        key = f"upstreams.{name}"
        yield _LoginSettings(name, REST, key, password_variable(name), upstream)
        for number, each in enumerate(upstream.accounts):
            variable = password_variable(name, each.name)
            yield _LoginSettings(name, each.name, f"{key}.accounts.{number}", variable, each)


def password_variable(upstream: str, account: str = REST) -> str:
    """Return the variable that may hold the password of an account at an upstream."""
    name = f"{upstream}__{account}" if account else upstream
    return PASSWORD_PREFIX + name.upper().replace("-", "_")


def password_variables(settings: Settings) -> set[str]:
    """Return all variables that may hold passwords, whether they are set or not."""
    return {each.variable for each in _each_login(settings)}


def describe_account(upstream: str, account: str, settings: UpstreamSettings) -> str:
    """Return an account at an upstream in words: its user, or else its name, and the setting."""
    key = f"upstreams.{upstream}"
    table: UpstreamSettings | AccountSettings = settings
    for number, each in enumerate(settings.accounts):
        if each.name == account:
            key, table = f"{key}.accounts.{number}", each
    field = "username" if table.username else "credential_helper"
    user = " ".join(filter(None, ["the mirror's account", table.username or account]))
    return f"{user} (the setting '{key}.{field}')"


def load_accounts(
    settings: Settings, environ: Mapping[str, str], run: RunProgram, clock: IReactorTime
) -> dict[str, Accounts]:
    """Return the mirror's own accounts, by the names of their upstreams.

    :param environ: may hold passwords; credential helpers run in it, without the mirror's own variables.
    :raises ConfigurationError: when a password or a credential helper is missing, or both are given.
    """
    from ..middleware.token_registry import CredentialHelper, FixedAccount  # no command needs it

    accounts: dict[str, dict[str, IAccount]] = {}
    for (name, account), credentials in load_credentials(settings, environ).items():
        accounts.setdefault(name, {})[account] = FixedAccount(Login(credentials))
    # Other upstreams' passwords stand in variables of the mirror's own.
    helper_environ = {key: value for key, value in environ.items() if not key.startswith(PREFIX)}
    for each in _each_login(settings):
        if each.settings.credential_helper is not None:
            upstream = settings.upstreams[each.upstream]
            program = _find_helper(each, each.settings.credential_helper, helper_environ.get("PATH"))
            server = _HUB_SERVER if upstream.canonical == "docker.io" else urlsplit(upstream.url).netloc
            get = partial(run, [program, "get"], helper_environ)
            shown = f"{each.upstream} ({each.account})" if each.account else each.upstream
            helper = CredentialHelper(shown, server, get, clock)
            accounts.setdefault(each.upstream, {})[each.account] = helper
    return dict(accounts)


def _find_helper(login: _LoginSettings, helper: str, path: str | None) -> str:
    key = f"{login.key}.credential_helper"
    if login.settings.username is not None:
        raise ConfigurationError(f"{key}: expected no 'username' beside it")
    command = helper if "/" in helper else f"docker-credential-{helper}"
    program = shutil.which(command, path=path)
    if program is None:
        raise ConfigurationError(f"{key}: expected a program; {command} is missing or not executable")
    return program


def load_credentials(settings: Settings, environ: Mapping[str, str]) -> dict[tuple[str, str], Credentials]:
    """Return the user names and passwords of the mirror's own accounts, by upstream and account.

    :param environ: may hold passwords, which win over those in files.
    :raises ConfigurationError: for a user name without a password, and for a password without a user name.
    """
    variables = {key: value for key, value in environ.items() if key.startswith(PASSWORD_PREFIX)}
    credentials = dict(_each_credentials(settings, variables))
    unused = variables.keys() - {password_variable(*key) for key in credentials}
    if unused:
        raise ConfigurationError(
            f"the environment: {min(unused)}: expected an upstream, or one of its accounts, of that name with"
            " a 'username'"
        )
    return credentials


def _each_credentials(
    settings: Settings, variables: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str], Credentials]]:
    used: dict[str, str] = {}
    for login in _each_login(settings):
        username = login.settings.username
        if username is None:
            if login.settings.password_file is not None:
                raise ConfigurationError(f"{login.key}.password_file: expected a 'username' beside it")
            continue
        if login.variable in variables and login.variable in used:
            raise ConfigurationError(
                f"the environment: {login.variable}: means both {used[login.variable]} and {login.key};"
                " rename one of them, or use 'password_file'"
            )
        used[login.variable] = login.key
        password = variables.get(login.variable) or _read_password(login)
        if not password:
            raise ConfigurationError(
                f"{login.key}.username: expected a password for it, in 'password_file' or in {login.variable}"
            )
        yield (login.upstream, login.account), Credentials.basic(username, password)


def _read_password(login: _LoginSettings) -> str:
    key, path = f"{login.key}.password_file", login.settings.password_file
    try:
        return path.read_once().removesuffix(b"\n").decode() if path else ""
    except OSError as error:
        raise ConfigurationError(f"{key}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{key}: expected text in UTF-8") from None
