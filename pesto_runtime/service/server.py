"""One service on one socket, until it is stopped."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.app import create_app
from pesto_runtime.service.documents import PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.processor import Processor
    from pesto_runtime.service.limits import Limits

_GRACE_S = 30
_BACKLOG = 2048


def serve(
    processor: Processor,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow: Sequence[str] = (),
    limits: Limits | None = None,
) -> None:
    """Serve a processor until SIGINT or SIGTERM; says where, once its set-up is done.

    Args:
        processor: What to serve.
        host: Address to listen on; it decides what the gate admits.
        port: 0 for any that is free.
        allow: Prefixes of hrefs that may be read and written.
        limits: Sizes, threads and queue.

    Raises:
        InvalidContract: the process cannot be served.
        InvalidInput: the address cannot be listened on.
    """
    listening = _listening(host, port)
    url = f"http://{_authority(listening)}{PREFIX}"
    known = processor.description

    def announce() -> None:
        sys.stderr.write(f"serving {known.name} {known.version} on {url}\n")
        sys.stderr.flush()

    with listening:
        app = create_app(
            processor, gate=Gate.bound_to(host, allow), limits=limits, on_ready=announce
        )
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            lifespan="on",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=75,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return found


def _authority(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
