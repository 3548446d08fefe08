"""How a worker stops without losing a request: it answers what comes, closes the door, and ends what is in work.

1. **Linger**: connections are accepted and requests answered as before, each answer with `Connection: close`, and
   readiness says 503, until nothing came for a moment, or `linger_seconds` are over.
2. **Close**: no new connection is begun; those that the system took in the meantime are accepted and answered too.
   From then on a client is refused at once and knows that nothing was sent.
3. **Drain**: requests in work have `drain_seconds`; what takes longer is told 503. Idle connections are closed, unless
   something was sent on them, which is answered first.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

QUIET_SECONDS = 0.3
_LOOK_SECONDS, _HANDSHAKE_SECONDS = 0.02, 0.05
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python does not name
# The kernel's packet filter: load the TCP flags, drop what has SYN among them, keep all else.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


async def linger(arrivals: Callable[[], int], longest_seconds: float) -> None:
    """Wait until nothing arrived for a moment, at most for so long.

    Args:
        arrivals: How many connections and requests came so far.
    """
    end = time.monotonic() + longest_seconds
    seen, quiet_since = arrivals(), time.monotonic()
    while (now := time.monotonic()) < end and now - quiet_since < QUIET_SECONDS:
        await asyncio.sleep(_LOOK_SECONDS)
        if (found := arrivals()) != seen:
            seen, quiet_since = found, time.monotonic()


async def close_door(listener: socket.socket, servers: list[Any], protocol: Callable[[], asyncio.Protocol]) -> None:
    """Accept no more connections, and all that the system has begun: none that a client holds for open is reset.

    Args:
        listener: The socket of the servers; it is closed.
        protocol: Makes a connection of what is accepted here.
    """
    # Without such a filter (not on Linux) a connection may be begun between the last accept and the close.
    with suppress(OSError):
        refuse_new(listener)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
    listener.setblocking(False)
    for server in servers:
        server.close()
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            break
        except OSError:  # that one was gone before it was taken
            continue
        await loop.connect_accepted_socket(protocol, accepted)
    listener.close()


def refuse_new(listener: socket.socket) -> None:
    """Let the kernel drop requests for new connections; those that it has begun go on.

    A client whose request is dropped asks again a second later, and is refused by then.

    Raises:
        OSError: The system has no such filter.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    told = struct.pack("HL", len(_NO_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, told)
