"""The use of budgets by client networks, as the status shows it."""

from __future__ import annotations

from attrs import frozen


@frozen
class NetworkShare:
    """The use of a budget by one client network; where each image is counted by itself, of one image.

    :ivar client: the network as far as the history may name it; empty if it may not.
    :ivar share: the used part of the limit of which most is used; at least 1 if the budget is used up.
    :ivar ends: when the window ends, in seconds since the epoch.
    """

    client: str
    share: float
    requests: int
    pulls: int
    bytes: int
    ends: float


@frozen
class BudgetStatus:
    """A budget for images, and its use in the current window of each client network.

    :ivar images: the pattern of the images.
    :ivar each: ``image`` if each image is counted by itself; ``network`` if all of them together.
    :ivar window: seconds.
    :ivar networks: number of client networks that have used some of it.
    :ivar used_up: number of those that have used up a limit, of some image at least.
    :ivar refused: number of requests that were refused since the mirror started.
    :ivar most: the networks with the largest shares.
    """

    images: str
    each: str
    requests: int | None
    pulls: int | None
    bytes: int | None
    window: float
    networks: int = 0
    used_up: int = 0
    refused: int = 0
    most: tuple[NetworkShare, ...] = ()
