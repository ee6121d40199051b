"""The command line of a case, and of all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from .table import Row, table

ROUNDS = 5


def run(case: Callable[[int], Iterable[Row]]) -> None:
    """Prints the table of one case."""
    print(table(case(rounds("One case; see the module."))))


def rounds(description: str) -> int:
    """How many the command line asks for."""
    return int(parser(description).parse_args().rounds)


def parser(description: str) -> argparse.ArgumentParser:
    """What reads the command line of a case that has options of its own."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help=f"the default is {ROUNDS}")
    return arguments
