"""What one client of the simulator has asked for: Coinbase's subscribe messages, without the socket."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from streamapp.simulator.frames import CHANNELS, MATCHES, Frame


class Subscription:
    """The channels and products of one client.

    Args:
        products: every product that the server has.
    """

    def __init__(self, products: Sequence[str]) -> None:
        self._products = tuple(products)
        self._chosen: dict[str, dict[str, None]] = {}
        self._wants_all = False

    def on_message(self, text: str) -> tuple[str, list[str]]:
        """Apply a client's message.

        Returns:
            The reply (`subscriptions` or `error`), and the products of which matches are new.
        """
        try:
            message = json.loads(text)
            kind = message["type"]
            wanted = self._wanted(message)
        except (ValueError, KeyError, TypeError) as problem:
            reason = str(problem) if isinstance(problem, _RefusedError) else "expected a subscribe message in JSON"
            return json.dumps({"type": "error", "message": "Failed to subscribe", "reason": reason}), []
        if kind not in ("subscribe", "unsubscribe"):
            return json.dumps({"type": "error", "message": "Unknown message type", "reason": str(kind)[:80]}), []
        before = set(self._chosen.get(MATCHES, {}))
        for channel, products in wanted:
            chosen = self._chosen.setdefault(channel, {})
            for product in products:
                if kind == "subscribe":
                    chosen[product] = None
                else:
                    chosen.pop(product, None)
        self._wants_all = all(len(self.products(channel)) == len(self._products) for channel in CHANNELS)
        new = [product for product in self.products(MATCHES) if product not in before]
        return self._state(), new

    def products(self, channel: str) -> list[str]:
        """The products chosen on a channel, in the order of choosing."""
        return list(self._chosen.get(channel, {}))

    def texts(self, frames: Iterable[Frame]) -> list[str]:
        """The payloads of those frames that this client gets."""
        if self._wants_all:
            return [text for _, _, text in frames]
        chosen, nothing = self._chosen, dict[str, None]()
        return [
            text
            for channel, product, text in frames
            if (product in chosen.get(channel, nothing) if channel else bool(chosen))
        ]

    def _wanted(self, message: dict[str, Any]) -> list[tuple[str, list[str]]]:
        common = self._checked(message.get("product_ids") or list(self._products))
        wanted = []
        for channel in message["channels"]:
            name, products = channel, common
            if isinstance(channel, dict):
                name = channel["name"]
                products = self._checked(channel.get("product_ids") or common)
            if name not in CHANNELS:
                raise _RefusedError(f"{str(name)[:80]} is not a channel of the simulator: {', '.join(CHANNELS)}")
            wanted.append((name, products))
        return wanted

    def _checked(self, products: list[str]) -> list[str]:
        for product in products:
            if product not in self._products:
                raise _RefusedError(f"{str(product)[:80]} is not a valid product")
        return products

    def _state(self) -> str:
        channels = [{"name": name, "product_ids": list(chosen)} for name, chosen in self._chosen.items() if chosen]
        return json.dumps({"type": "subscriptions", "channels": channels}, separators=(",", ":"))


class _RefusedError(ValueError):
    """A subscription to something that does not exist."""
