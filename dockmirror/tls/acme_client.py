"""An authority that gives certificates to who proves to have a name: ACME (RFC 8555); calls that block."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

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

from .acme_store import AcmeStore
from .certificate_renewal import AuthorityUnavailable, NameRefused

_TIMEOUT = 30
_PATIENCE = timedelta(seconds=90)


class AcmeClient:
    """Asked with an account of the mirror's own, which is made when the first certificate is.

    :param url: its directory, in ACME's meaning.
    :param ca_file: the certificates by which the authority itself is known; by default those of public ones.
    :param kept: where the account's key is, what proves names, and the certificates.
    """

    def __init__(self, url: str, email: str, ca_file: Path | None, kept: AcmeStore) -> None:
        self._url = url
        self._email = email
        self._ca_file = ca_file
        self._kept = kept
        self._client: ClientV2 | None = None

    def issue(self, name: str) -> None:
        """Gets a certificate for the name, with a new key, and keeps both.

        :raises Refused: when there is none for this name.
        :raises Unavailable: when there is none for any name, now.
        """
        try:
            self._client = client = self._client or self._connect()
            key = _new_key()
            order = client.new_order(crypto_util.make_csr(key, [name]))
            with self._kept.publish_proofs() as prove:
                for authorization in order.authorizations:
                    if authorization.body.status != messages.STATUS_VALID:
                        _prove(client, authorization.body, prove)
                order = client.poll_and_finalize(order, datetime.now() + _PATIENCE)
            self._kept.save_certificate(name, key + order.fullchain_pem.encode())
        except (errors.Error, josepy.errors.Error) as error:
            self._client = None
            raise NameRefused(_said(error)) from error
        except OSError as error:  # among them those of requests
            self._client = None
            raise AuthorityUnavailable(_line(str(error))) from error

    def _connect(self) -> ClientV2:
        """With the account of the key, which the authority makes where it has none."""
        network = ClientNetwork(self._account(), alg=ES256, user_agent="dockmirror", timeout=_TIMEOUT)
        if self._ca_file is not None:
            network.verify_ssl = str(self._ca_file)  # type: ignore[assignment]  # requests takes either
        try:
            client = ClientV2(ClientV2.get_directory(self._url, network), network)
            _log_in(client, self._email)
        except (errors.Error, josepy.errors.Error) as error:
            raise AuthorityUnavailable(f"{self._url}: {_said(error)}") from error
        return client

    def _account(self) -> JWKEC:
        try:
            return JWKEC(key=load_pem_private_key(self._kept.account_key(_new_key), None))
        except (ValueError, TypeError):
            raise AuthorityUnavailable(f"the account's key in {self._kept.folder} cannot be read") from None


def _log_in(client: ClientV2, email: str) -> None:
    wanted = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        client.new_account(wanted)
    except errors.ConflictError as there_already:
        client.net.account = messages.RegistrationResource(
            body=messages.Registration(), uri=there_already.location
        )


def _prove(client: ClientV2, asked: messages.Authorization, prove: Callable[[str, str], None]) -> None:
    """That a name is ours, by HTTP on its port 80 (RFC 8555, 8.3)."""
    for offered in asked.challenges:
        if isinstance(offered.chall, HTTP01):
            answer, proof = offered.response_and_validation(client.net.key)
            prove(offered.chall.encode("token"), proof)
            client.answer_challenge(offered, answer)
            return
    raise errors.ClientError("the authority takes no proof by HTTP (HTTP-01)")


def _new_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _said(error: Exception) -> str:
    """In the authority's own words, where it has any."""
    if isinstance(error, errors.ValidationError):
        challenges = [each for failed in error.failed_authzrs for each in failed.body.challenges]
        return "; ".join(_said(each.error) for each in challenges if each.error is not None)
    if isinstance(error, errors.TimeoutError):
        return f"the authority had not decided after {_PATIENCE.seconds} s"
    if isinstance(error, errors.IssuanceError):
        return _said(error.error)
    if isinstance(error, messages.Error):
        return _line(error.detail or error.description or str(error))
    return _line(str(error) or type(error).__name__)


def _line(text: str) -> str:
    return " ".join(text.split())
