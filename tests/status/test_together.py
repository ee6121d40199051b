"""What several processes have noted."""

from __future__ import annotations

from dockmirror.status.together import together
from dockmirror.status.values import Address, Fetch, Held, Noted, Quota, Upstream, Usage, Used


def upstream(*addresses: Address, rests: float | None = None, quota: Quota | None = None) -> Noted:
    """What a process has noted of an upstream."""
    return Noted((Upstream("docker", "docker.io", "docker.m", addresses, rests, quota),))


def test_nobody() -> None:
    """Has noted nothing."""
    assert together([]) == Noted(processes=0)


def test_an_upstream() -> None:
    """The latest counts of what each has seen; an address that another has forgotten is told all the same."""
    one = upstream(Address("a", 5.0, 3.0, "three"), Address("b", 1.0), rests=4.0, quota=Quota(1.0, 100, 9))
    other = upstream(Address("a", 2.0, 4.0, "four"), rests=6.0, quota=Quota(2.0, 100, 8))
    expected = upstream(
        Address("a", 5.0, 4.0, "four"), Address("b", 1.0), rests=6.0, quota=Quota(2.0, 100, 8)
    )
    assert together([one, other]).upstreams == expected.upstreams
    assert together([one, upstream(Address("a"), Address("b"))]).upstreams == one.upstreams


def test_fetches() -> None:
    """One that fills a file and those who read behind it are one."""
    filled = Fetch("docker.io", "sha256:a", ("docker.io/x",), 50, 100, 7.0)
    behind = Fetch("docker.io", "sha256:a", ("docker.io/y",), 40, 100, 6.0)
    elsewhere = Fetch("ghcr.io", "sha256:a", ("ghcr.io/x",), 1, None, None)
    assert together([Noted(fetches=(filled, elsewhere)), Noted(fetches=(behind,))]).fetches == (
        Fetch("docker.io", "sha256:a", ("docker.io/x", "docker.io/y"), 50, 100, 7.0),
        elsewhere,
    )


def test_the_cache() -> None:
    """All have the same; who has looked last knows most."""
    noted = together([Noted(cache=Held(0, 100)), Noted(cache=Held(7, 100)), Noted()])
    assert noted.cache == Held(7, 100)
    assert noted.processes == 3


def test_the_usage() -> None:
    """Is that which was measured last."""
    old, new = Usage(1.0, 0.5, (), 900), Usage(2.0, 0.5, (Used("docker.io", 7, 2, 3),), 9)
    assert together([Noted(usage=new), Noted(), Noted(usage=old)]).usage == new


def test_the_cache_and_the_usage() -> None:
    """Are told of by the same process: one that has not noticed a removal knows of more, and is older."""
    before = Noted(cache=Held(900, 1000), usage=Usage(1.0, 0.5, (Used("docker.io", 900, 0, 3),), 900))
    after = Noted(cache=Held(9, 1000), usage=Usage(2.0, 0.5, (Used("docker.io", 7, 2, 3),), 9))
    for noted in ([before, after], [after, before]):
        merged = together(noted)
        assert (merged.cache, merged.usage) == (after.cache, after.usage)
