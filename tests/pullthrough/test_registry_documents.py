"""Documents of two registries that have the same name in the settings."""

from __future__ import annotations

from dockmirror.pullthrough.registry_documents import RegistryDocuments

from ..answering import now
from ..store.memory import MemoryDocuments


def test_documents_of_another_registry_are_not_read() -> None:
    """They are replaced; one that bears no mark is read by both."""
    stored = MemoryDocuments()
    one, two = (RegistryDocuments(stored, name) for name in ("one.example", "two.example"))
    now(stored.write("name", b"1"))
    assert [now(each.read("name")) for each in (one, two)] == [b"1", b"1"]
    now(one.write("name", b"2"))
    assert [now(each.read("name")) for each in (one, two)] == [b"2", None]
    now(two.write("name", b"3"))
    assert [now(each.read("name")) for each in (one, two)] == [None, b"3"]
    assert now(one.read("none")) is None
