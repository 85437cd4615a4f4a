"""A small network of namespaces on this machine: a switch in the middle, and hosts that can be cut off or served badly.

Each host is a namespace with one link to the switch; the machine itself has a link, too, so that the test can reach all of
them. Nothing outside is touched, and everything is gone at the end. Needs root and `ip` of iproute2; bad service needs
`netem` in the kernel, or else TAP devices, through which a process of the test's own passes the frames on.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.faults import relay


class Host:
    """One namespace.

    Attributes:
        address: its IPv4 address.
        prefix: what a command has to begin with to run there.
    """

    def __init__(self, network: "Network", number: int) -> None:
        self._network = network
        self.namespace = f"{network.name}h{number}"
        self.port = f"{network.name}p{number}"  # the switch's end of its link
        self.address = network.address(number)
        self.prefix = ("ip", "netns", "exec", self.namespace)
        self._relay: subprocess.Popen[bytes] | None = None
        self.netem = False

    def cut(self) -> None:
        """Pull the plug."""
        _ip("-n", self._network.switch, "link", "set", self.port, "down")

    def heal(self) -> None:
        """Put it in again."""
        _ip("-n", self._network.switch, "link", "set", self.port, "up")

    def serve_badly(self, **service: float) -> None:
        """Delay, lose and reorder from now on; see `relay.Service` for the words.

        `netem` does it on both ends of the link where the kernel has it, the relay otherwise.
        """
        if self._relay is not None:
            assert self._relay.stdin is not None
            self._relay.stdin.write(json.dumps(service).encode() + b"\n")
            self._relay.stdin.flush()
            return
        words = ["delay", f"{service['delay_ms']}ms", f"{service['jitter_ms']}ms", "loss", f"{service['loss'] * 100}%"]
        words += ["reorder", f"{100 - service['reorder'] * 100}%"]
        for namespace, device in ((self.namespace, "eth0"), (self._network.switch, self.port)):
            subprocess.run(
                ["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "netem", *words], check=True
            )


class Network:
    """Hosts around a switch. Use it as a context; skips where the machine does not allow it.

    Args:
        folder: for the relays' logs.
        hosts: how many.
        badly: whether hosts can be served badly.
    """

    def __init__(self, folder: Path, hosts: int, *, badly: bool = False) -> None:
        draw = random.Random()
        self.name = f"sf{draw.randrange(16**5):05x}"
        self._subnet = f"10.{draw.randrange(64, 250)}.{draw.randrange(256)}"
        self._folder = folder
        self._badly = badly
        self.switch = f"{self.name}sw"
        self.hosts = [Host(self, number) for number in range(2, 2 + hosts)]
        self._made: list[str] = []

    def address(self, number: int) -> str:
        """The address of a host; number 1 is the machine itself."""
        return f"{self._subnet}.{number}"

    def __enter__(self) -> Self:
        if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs Linux, root and iproute2 to make network namespaces")
        try:
            self._make()
        except subprocess.CalledProcessError as problem:
            self.__exit__()
            pytest.skip(f"this machine does not let us make network namespaces: {problem.stderr.decode().strip()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        for namespace in (self.switch, *(host.namespace for host in self.hosts)):
            _ip("netns", "add", namespace)
            self._made.append(namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        switch = self.switch
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        own, its = f"{self.name}m", f"{self.name}n"
        _ip("link", "add", own, "type", "veth", "peer", "name", its, "netns", switch)
        _ip("addr", "add", f"{self.address(1)}/24", "dev", own)
        _ip("link", "set", own, "up")
        self._plug(its)
        for host in self.hosts:
            if self._badly and not _has_netem():
                self._relayed(host)
            else:
                host.netem = self._badly
                _ip(
                    *("-n", switch, "link", "add", host.port, "type", "veth"),
                    *("peer", "name", "eth0", "netns", host.namespace),
                )
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            self._plug(host.port)

    def _plug(self, port: str) -> None:
        _ip("-n", self.switch, "link", "set", port, "master", "br0")
        _ip("-n", self.switch, "link", "set", port, "up")

    def _relayed(self, host: Host) -> None:
        if not Path("/dev/net/tun").exists():
            pytest.skip("the kernel has neither netem nor TAP devices")
        with (self._folder / f"relay-{host.namespace}.log").open("ab") as log:
            host._relay = subprocess.Popen(
                [sys.executable, relay.__file__, host.namespace, "eth0", self.switch, host.port],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert host._relay.stdout is not None
        if host._relay.stdout.readline() != b"ready\n":
            pytest.skip("cannot open TAP devices in namespaces here")

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            if host._relay is not None:
                host._relay.kill()
                host._relay.communicate()
        for namespace in reversed(self._made):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)
        self._made.clear()


def _has_netem() -> bool:
    """Whether the kernel can delay and lose by itself; tried on a namespace's own loopback."""
    name = f"sfq{os.getpid()}"
    if shutil.which("tc") is None:
        return False
    _ip("netns", "add", name)
    try:
        command = ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)
