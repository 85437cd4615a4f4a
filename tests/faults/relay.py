"""Passes Ethernet frames between two TAP devices in two namespaces: late, not at all, or out of order, as it is told.

Run as a script: `python relay.py NAMESPACE DEVICE NAMESPACE DEVICE`. It prints `ready` once both devices are there; a line
of standard input is a JSON object of how to serve from then on. It ends when standard input closes.
"""

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_FRAME_MAX = 65_536
#: frames under way; what comes beyond is lost, as in any router
_HELD_MAX = 20_000


@dataclass(frozen=True)
class Service:
    """How frames are passed on; shares are of 1.

    Attributes:
        delay_ms: of every frame.
        jitter_ms: up to this much more.
        loss: share of frames that are lost.
        reorder: share of frames that are overtaken: they wait five times as long.
        duplicate: share of frames that come twice.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0


def main(arguments: list[str]) -> None:
    """Relay until standard input closes."""
    ends = [_tap(*arguments[:2]), _tap(*arguments[2:4])]
    print("ready", flush=True)
    service, draw, number = Service(), random.Random(0), itertools.count()
    held: list[tuple[float, int, int, bytes]] = []
    last_due = [0.0, 0.0]
    os.set_blocking(0, False)
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else 1.0
        ready, _, _ = select.select([0, *ends], [], [], wait)
        if 0 in ready:
            told = os.read(0, 65_536)
            if not told:
                return
            service = Service(**json.loads(told.splitlines()[-1]))
        now = time.monotonic()
        for side, end in enumerate(ends):
            if end not in ready:
                continue
            frame = os.read(end, _FRAME_MAX)
            if draw.random() < service.loss or len(held) >= _HELD_MAX:
                continue
            delay = service.delay_ms + draw.random() * service.jitter_ms
            if draw.random() < service.reorder:
                due = now + 5 * delay / 1000
            else:
                # jitter alone does not reorder: frames queue behind each other
                due = last_due[side] = max(last_due[side], now + delay / 1000)
            for _ in range(2 if draw.random() < service.duplicate else 1):
                heapq.heappush(held, (due, next(number), ends[1 - side], frame))
        while held and held[0][0] <= time.monotonic():
            _, _, other, frame = heapq.heappop(held)
            try:
                os.write(other, frame)
            except OSError:
                pass  # the device is down: the frame is lost


def _tap(namespace: str, device: str) -> int:
    """A TAP device in that namespace; its file descriptor, usable from everywhere."""
    with open(f"/run/netns/{namespace}") as place:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(place.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


if __name__ == "__main__":
    main(sys.argv[1:])
