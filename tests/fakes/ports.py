"""Ports for what tests start: none twice, and none that an outgoing connection may take before somebody listens there."""

import random
import socket

HOST = "127.0.0.1"
#: below what systems give to outgoing connections (32,768 on Linux, 49,152 elsewhere)
_PORTS = range(20_000, 32_000)
_TRIES_MAX = 1_000
#: of its own: what seeds the common one would have every process draw the same ports
_draw = random.SystemRandom()
_given: set[int] = set()


def unused_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody in this process was given before."""
    for _ in range(_TRIES_MAX):
        port = _draw.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError(f"no port between {_PORTS.start} and {_PORTS.stop} was free in {_TRIES_MAX} tries")
