"""The least that an HTTP server in Python can do for a read: aiohttp on uvloop, a dict, JSON. Argument: the port."""

import asyncio
import sys

import uvloop
from aiohttp import web

from benchmarks.peers.marks import mark
from benchmarks.topics import SYMBOLS, symbol

CANDLE = {"open": 100.25, "high": 101.5, "low": 99.75, "close": 100.5, "volume": 1234.5, "vwap": 100.375, "count": 321}
VALUES = {symbol(index): {**CANDLE, "count": index} for index in range(SYMBOLS)}


async def read(request: web.Request) -> web.Response:
    """One key."""
    key = request.match_info["key"]
    return web.json_response({"table": "candles", "key": key, "value": VALUES[key]})


async def started(_: web.Application) -> None:
    # on the loop's next turn, when the socket listens
    asyncio.get_running_loop().call_later(0.2, mark, "ready")


def main() -> None:
    uvloop.install()
    app = web.Application()
    app.on_startup.append(started)
    app.router.add_get("/v1/tables/candles/keys/{key}", read)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
