"""Files of blocks: their claims and their map."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dockmirror.store.downloads.block_file import BlockFile, BlockFileState
from dockmirror.store.downloads.context import BlobVersion

from ..downloads.upstream import REGISTRY
from ..threads import inline
from .parts import BLOCKS, END, MEBIBYTE, PartMirror


def test_no_file_is_made_while_one_is_finished(mirror: PartMirror) -> None:
    """A file whose map is cut off looks like a new one until it has the name of the blob."""
    opened = [BlockFile(mirror.root, REGISTRY, mirror.digest, inline) for _ in range(2)]
    opened[0].create(BlobVersion(END), range(BLOCKS))
    assert opened[0].claim_all()
    assert not opened[1].claim_creation()
    opened[0].release_all()
    assert opened[1].claim_creation()
    assert not opened[0].claim_all()
    for file in opened:
        file.close()


def test_a_file_is_never_lost_while_another_process_finishes_it(tmp_path: Path) -> None:
    """It is incomplete until it is the blob: a reader that finds it without a name fetches its part anew."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(60):
            mirror = PartMirror(tmp_path / str(number))
            mirror.blob.parent.mkdir(parents=True)
            finishing, reading = (BlockFile(mirror.root, REGISTRY, mirror.digest, inline) for _ in range(2))
            finishing.create(BlobVersion(END), range(BLOCKS))
            assert finishing.claim_all()
            assert reading.state(0) is BlockFileState.INCOMPLETE
            with ThreadPoolExecutor(1) as pool:
                finished = pool.submit(finishing.commit)
                while (state := reading.state(0)) is BlockFileState.INCOMPLETE:
                    pass
                assert finished.result()
            assert state is BlockFileState.COMPLETE
            for file in (finishing, reading):
                file.close()
    finally:
        sys.setswitchinterval(interval)


def test_the_map_of_a_large_blob_is_not_read_each_time(tmp_path: Path) -> None:
    """Own blocks are known at once, and those of other processes after a while."""
    opened = [BlockFile(tmp_path, REGISTRY, PartMirror(tmp_path).digest, inline) for _ in range(2)]
    opened[0].create(BlobVersion(640 * MEBIBYTE), range(0))
    opened[1].state(0)
    opened[0].record(0, 0)
    assert opened[1].present() == {0}
    opened[0].record(1, 0)
    opened[1].record(2, 0)
    assert opened[1].present() == {0, 2}
    assert [opened[1].present() for _ in range(opened[1].blocks // 64)][-1] == {0, 1, 2}
    for file in opened:
        file.close()


def test_a_file_that_was_finished_since_it_was_opened(mirror: PartMirror) -> None:
    """Its version is that of the blob, though its footer was never read."""
    opened = [BlockFile(mirror.root, REGISTRY, mirror.digest, inline) for _ in range(2)]
    opened[0].create(BlobVersion(END), range(BLOCKS))
    assert opened[0].claim_all()
    assert opened[0].commit()
    assert opened[1].state(0) is BlockFileState.COMPLETE
    assert opened[1].version == BlobVersion(END)
    for file in opened:
        file.close()
