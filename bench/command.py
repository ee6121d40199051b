"""The command line of one case, and of all cases."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from .table import Row, table

ROUNDS = 5


def run(case: Callable[[int], Iterable[Row]]) -> None:
    """Print the table of one case."""
    print(table(case(rounds("One case; see the module."))))


def rounds(description: str) -> int:
    """Return the number of rounds on the command line."""
    return int(parser(description).parse_args().rounds)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser for the command line of a case that has options of its own."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help=f"the default is {ROUNDS}")
    return arguments
