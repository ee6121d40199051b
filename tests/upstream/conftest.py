"""Real servers for the tests, and the authority that signs their certificates."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped, unused-ignore]
from cryptography.hazmat.primitives import serialization

from tests.listening import AUTHORITY, Listening


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    """Return the file with the authority's certificate."""
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.certificate.public_bytes(serialization.Encoding.PEM))
    return str(path)


@pytest_twisted.async_yield_fixture()
async def serve() -> AsyncIterator[Callable[..., Listening]]:
    """Return a function that starts servers, which end with the test."""
    listening: list[Listening] = []

    def start(*choices: Any) -> Listening:
        listening.append(Listening(*choices))
        return listening[-1]

    yield start
    for one in listening:
        await one.port.stopListening()
        for server in one.accepted:
            if not server.lost.called:
                server.transport.abortConnection()
            await server.lost
