"""Changes by other processes at the worst moment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def before(call: object, meanwhile: Callable[[], object]) -> Iterator[None]:
    """Run something right before the first such call to the operating system."""

    def profile(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is call:
            sys.setprofile(None)
            meanwhile()

    sys.setprofile(profile)
    yield
    sys.setprofile(None)
