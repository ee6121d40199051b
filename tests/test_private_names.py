"""The private names of Twisted and treq that the package uses, which a release may drop without notice.

They are found in the source: names that are imported, attributes of their objects, and what our classes that
inherit from theirs share with them.  The last includes names that only happen to be the same.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from types import ModuleType

import pytest

import dockmirror

IMPORTED = {
    "twisted.internet._resolver:GAIResolver",
    "twisted.internet._resolver:HostResolution",
    "twisted.web._newclient:HTTP11ClientProtocol",
    "twisted.web._newclient:RequestGenerationFailed",
    "twisted.web._newclient:RequestNotSent",
    "twisted.web._newclient:RequestTransmissionFailed",
    "twisted.web._newclient:ResponseFailed",
    "twisted.web._newclient:ResponseNeverReceived",
    "twisted.web.http:_ChunkedTransferDecoder",
    "twisted.web.http:_IdentityTransferDecoder",
    "twisted.web.http:_MalformedChunkedDataError",
}
SHARED = {
    "twisted.internet.base:BaseConnector._makeTransport",
    "twisted.internet.process:Process._resetSignalDisposition",
    "twisted.internet.process:Process._trySpawnInsteadOfFork",
    "twisted.internet.process:_BaseProcess._execChild",
    "twisted.internet.process:_BaseProcess._resetSignalDisposition",
    "twisted.internet.process:_BaseProcess._trySpawnInsteadOfFork",
    "twisted.internet.tcp:Connector._makeTransport",
    "twisted.internet.tcp:Port._preexistingSocket",
    "twisted.internet.unix:Port._preexistingSocket",
    "twisted.web._newclient:HTTP11ClientProtocol._responseDeferred",
    "twisted.web._newclient:HTTP11ClientProtocol._state",
    "twisted.web.client:Agent._requestWithEndpoint",
    "twisted.web.client:HTTPConnectionPool._factory",
    "twisted.web.client:_AgentBase._requestWithEndpoint",
    "twisted.web.http:HTTPChannel._command",
    "twisted.web.http:HTTPChannel._networkProducer",
    "twisted.web.http:HTTPChannel._path",
    "twisted.web.http:HTTPChannel._respondToBadRequestAndDisconnect",
    "twisted.web.http:HTTPChannel._send100Continue",
    "twisted.web.http:HTTPChannel._version",
    "twisted.web.http:Request._log",
    "twisted.web.server:Request._log",
}
LOOKED_UP = {"twisted.internet.tcp:Port._shouldShutdown", "twisted.logger:LogPublisher._observers"}
"""On objects that are not our own."""
FOREIGN = ("twisted", "treq")


def is_private(name: str) -> bool:
    """Tell whether a name is private; special methods are not."""
    return name.startswith("_") and not name.endswith("__")


def is_foreign(module: str) -> bool:
    """Tell whether a module belongs to Twisted or treq."""
    return module.partition(".")[0] in FOREIGN


def modules() -> Iterator[ModuleType]:
    """Import every module of the package."""
    for each in pkgutil.walk_packages(dockmirror.__path__, "dockmirror."):
        yield importlib.import_module(each.name)


@cache
def nodes_of(module: ModuleType) -> list[ast.AST]:
    """Parse the source of a module, and return all nodes of its tree."""
    return list(ast.walk(ast.parse(inspect.getsource(module))))


@cache
def classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes in a module's source by their names."""
    nodes = nodes_of(importlib.import_module(module))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


@cache
def names_in(module: str, name: str) -> set[str]:
    """Return the private names of a class by its source; one that was generated has none."""
    return own_attributes(ast.walk(classes_of(module).get(name, ast.Module([], []))))


def own_names(one: type) -> set[str]:
    """Return the private names of a class."""
    return names_in(one.__module__, one.__name__)


def imports(module: ModuleType) -> Iterator[str]:
    """Yield what a module imports that is private itself, or lies in a private module."""
    for node in nodes_of(module):
        if isinstance(node, ast.ImportFrom) and not node.level and is_foreign(node.module or ""):
            for alias in node.names:
                if any(map(is_private, [*(node.module or "").split("."), alias.name])):
                    yield f"{node.module}:{alias.name}"


def is_own(node: ast.Attribute) -> bool:
    """Tell whether an attribute is looked up on the object or class itself."""
    return ast.unparse(node.value) in ("self", "cls", "super()")


def own_attributes(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the private names that classes define, and that objects look up on themselves."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr) and is_own(node):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return set(filter(is_private, names))


def shared(module: ModuleType) -> Iterator[str]:
    """Yield the private names that our classes share with the foreign ones from which they inherit."""
    for _, ours in inspect.getmembers(module, inspect.isclass):
        if ours.__module__ == module.__name__:
            names = own_names(ours)
            for base in filter(lambda base: is_foreign(base.__module__), ours.__mro__):
                for name in names & own_names(base):
                    yield f"{base.__module__}:{base.__qualname__}.{name}"


def attributes_of_others(module: ModuleType) -> Iterator[str]:
    """Yield the private names that a module looks up on other objects than its own."""
    for node in nodes_of(module):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node):
            yield node.attr


def test_complete() -> None:
    """Every private name that is used is listed, and no other."""
    everything = list(modules())
    assert {each for module in everything for each in imports(module)} == IMPORTED
    assert {each for module in everything for each in shared(module)} == SHARED
    ours = {name for module in everything for name in own_attributes(nodes_of(module))}
    foreign = {name for module in everything for name in attributes_of_others(module)} - ours
    of_python = {"_replace", "_exit"}  # of named tuples, and of ``os``
    assert foreign - of_python == {each.rpartition(".")[2] for each in LOOKED_UP}


@pytest.mark.parametrize("used", sorted(IMPORTED | SHARED | LOOKED_UP))
def test_there(used: str) -> None:
    """The installed version still has the name."""
    module, _, path = used.partition(":")
    name, _, attribute = path.partition(".")
    gone = f"{used} has gone from the installed version: find out what takes its place"
    found = getattr(importlib.import_module(module), name, None)
    assert found is not None, gone
    bases = inspect.getmro(found) if inspect.isclass(found) else ()
    assert not attribute or any(attribute in own_names(base) for base in bases), gone
