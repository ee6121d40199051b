"""Obtain certificates from an ACME authority (RFC 8555); the calls block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import josepy.errors
from acme import crypto_util, errors, messages
from acme.challenges import HTTP01
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from .acme_renewal import AcmeStore, AuthorityUnavailable, NameRefused

_TIMEOUT = 30
_ORDER_TIMEOUT = timedelta(seconds=90)


class AcmeClient:
    """Requests certificates with the mirror's own account, which is created with the first one.

    :param url: the authority's directory resource.
    :param ca_file: CA certificates that verify the authority's own; None for the public ones.
    :param store: keeps the account key and the certificates.
    :param publish_proofs: see ``AcmeStore.publish_proofs``.
    """

    def __init__(
        self,
        url: str,
        email: str,
        ca_file: Path | None,
        store: AcmeStore,
        publish_proofs: Callable[[], AbstractContextManager[Callable[[str, str], None]]],
    ) -> None:
        self._url = url
        self._email = email
        self._ca_file = ca_file
        self._store = store
        self._publish_proofs = publish_proofs
        self._client: ClientV2 | None = None

    def issue(self, name: str) -> None:
        """Obtain a certificate with a new key for the name, and save both.

        :raises NameRefused: when the authority refuses this name.
        :raises AuthorityUnavailable: when it issues no certificates at all now.
        """
        try:
            self._client = client = self._client or self._connect()
            key = _new_key()
            order = client.new_order(crypto_util.make_csr(key, [name]))
            with self._publish_proofs() as prove:
                for authorization in order.authorizations:
                    if authorization.body.status != messages.STATUS_VALID:
                        _prove(client, authorization.body, prove)
                order = client.poll_and_finalize(order, datetime.now() + _ORDER_TIMEOUT)
            self._store.save_certificate(name, key + order.fullchain_pem.encode())
        except (errors.Error, josepy.errors.Error) as error:
            self._client = None
            raise NameRefused(_describe(error)) from error
        except OSError as error:  # among them those of requests
            self._client = None
            raise AuthorityUnavailable(_join_lines(str(error))) from error

    def _connect(self) -> ClientV2:
        """Return a client that is logged in; the authority creates the account if it has none."""
        network = ClientNetwork(self._account(), alg=ES256, user_agent="dockmirror", timeout=_TIMEOUT)
        if self._ca_file is not None:
            network.verify_ssl = str(self._ca_file)  # type: ignore[assignment]  # requests takes either
        try:
            client = ClientV2(ClientV2.get_directory(self._url, network), network)
            _log_in(client, self._email)
        except (errors.Error, josepy.errors.Error) as error:
            raise AuthorityUnavailable(f"{self._url}: {_describe(error)}") from error
        except (KeyError, TypeError):  # from JSON that lacks a field, or is no object
            raise AuthorityUnavailable(f"{self._url}: the answer is no ACME directory") from None
        return client

    def _account(self) -> JWKEC:
        try:
            return JWKEC(key=load_pem_private_key(self._store.account_key(_new_key), None))
        except (ValueError, TypeError):
            raise AuthorityUnavailable(f"the account's key in {self._store.folder} cannot be read") from None


def _log_in(client: ClientV2, email: str) -> None:
    registration = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        client.new_account(registration)
    except errors.ConflictError as existing:
        client.net.account = messages.RegistrationResource(
            body=messages.Registration(), uri=existing.location
        )


def _prove(
    client: ClientV2, authorization: messages.Authorization, prove: Callable[[str, str], None]
) -> None:
    """Prove control of a name by HTTP-01 on its port 80 (RFC 8555, 8.3)."""
    for challenge in authorization.challenges:
        if isinstance(challenge.chall, HTTP01):
            answer, proof = challenge.response_and_validation(client.net.key)
            prove(challenge.chall.encode("token"), proof)
            client.answer_challenge(challenge, answer)
            return
    raise errors.ClientError("the authority does not offer HTTP-01 challenges")


def _new_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _describe(error: Exception) -> str:
    """Return the authority's own description of the failure, if it gave one."""
    if isinstance(error, errors.ValidationError):
        challenges = [each for failed in error.failed_authzrs for each in failed.body.challenges]
        return "; ".join(_describe(each.error) for each in challenges if each.error is not None)
    if isinstance(error, errors.TimeoutError):
        return f"the authority did not decide within {_ORDER_TIMEOUT.seconds} s"
    if isinstance(error, errors.IssuanceError):
        return _describe(error.error)
    response: Any = next(iter(error.args), None)
    if hasattr(response, "status_code"):  # without a description, such as a proxy's
        return f"{response.status_code} {response.reason}"
    if isinstance(error, messages.Error):
        return _join_lines(error.detail or error.description or str(error))
    return _join_lines(str(error) or type(error).__name__)


def _join_lines(text: str) -> str:
    return " ".join(text.split())
