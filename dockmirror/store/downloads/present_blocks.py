"""The blocks that ranges of a blob have left, for a download of all of it."""

from __future__ import annotations

from functools import partial

from attrs import frozen

from ...oci.digest import Digest
from .. import layout
from ..threads import shield
from .block_file import BLOCK, BlockFile, BlockFileState
from .context import DownloadContext

MIN_RUN = 4
"""The shortest run of present blocks that a download skips; skipping costs another request."""


@frozen
class PresentBlocks:
    """The file of a blob's blocks, which are read and not claimed: others may go on to fetch what is missing.

    :ivar size: the size of the blob.
    """

    size: int
    _file: BlockFile

    @classmethod
    async def open(cls, context: DownloadContext, registry: str, digest: Digest) -> PresentBlocks | None:
        """Return the blocks; None if there are none that can be read."""
        if not (context.root / layout.growing_blocks(registry, digest)).exists():
            return None
        opening = partial(BlockFile, context.root, registry, digest, context.in_thread)
        try:
            file = await shield(context.in_thread(opening), late=BlockFile.close)
        except OSError as error:
            context.disk_log.record_failure(error)
            return None
        state = file.state(context.clock.seconds())
        if state is BlockFileState.INCOMPLETE and file.version is not None:
            return cls(file.version.size, file)
        file.close()
        return None

    async def read(self, offset: int) -> bytes | None:
        """Return the rest of the block at the offset, if it is there and matches its checksum.

        :raises OSError: if the disk fails.
        """
        if offset >= self.size:
            return None
        block = offset // BLOCK
        data = await self._file.reader.in_thread(lambda _: self._file.verify(block))
        return None if data is None else data[offset - block * BLOCK :]

    def missing(self, offset: int) -> int | None:
        """Return the number of bytes from the offset to the next run of blocks; None if none follows."""
        present, run = self._file.read_map(), 0
        for block in range(offset // BLOCK + 1, self._file.blocks):
            run = run + 1 if block in present else 0
            if run == MIN_RUN:
                return (block + 1 - MIN_RUN) * BLOCK - offset
        return None

    def drop(self) -> None:
        """Take the file's name away: the blocks may be wrong."""
        self._file.unlink()

    def close(self) -> None:
        self._file.close()
