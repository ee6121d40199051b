"""containerd as the kubelet has it pull: by the container runtime interface, a gRPC service on its socket.

What is said there is little enough to be written by hand: ``api.proto`` of https://github.com/kubernetes/cri-api.
"""

from __future__ import annotations

import re
import struct

from .clients import Containerd, curl
from .machine import Machine

_PULL = "http://containerd/runtime.v1.ImageService/PullImage"


class Kubelet:
    """The kubelet of a node, as far as images go.

    :param configuration: the lines that its containerd's own file has beside those of :class:`Containerd`.
    """

    def __init__(self, machine: Machine, configuration: str) -> None:
        self.containerd = Containerd(machine, configuration)

    def pull(self, image: str) -> str:
        """Have an image pulled.

        :return: the digest of its configuration, by which the node knows it.
        :raises RuntimeError: what containerd says where it cannot.
        """
        machine = self.containerd.machine
        request, response = machine.home / "request", machine.home / "response"
        message = _field(1, _field(1, image.encode()))
        request.write_bytes(struct.pack(">?I", False, len(message)) + message)
        told = curl(
            machine, "--http2-prior-knowledge", "--unix-socket", "/run/containerd/containerd.sock",
            "--header", "Content-Type: application/grpc", "--header", "TE: trailers",
            "--data-binary", f"@{request}", "--output", str(response), "--dump-header", "-", _PULL,
        )  # fmt: skip
        status = dict(re.findall(r"(?m)^grpc-(status|message): (.*?)\r?$", told.stdout))
        if status.get("status") != "0":
            raise RuntimeError(f"{status or told}")
        return response.read_bytes()[7:].decode()  # behind the frame's head, and the field's


def _field(number: int, value: bytes) -> bytes:
    """A field of a message, shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value
