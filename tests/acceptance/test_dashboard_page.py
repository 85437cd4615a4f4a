"""The dashboard in headless Chromium over the fake: what it shows is what the API says."""

import asyncio
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest
from aiohttp import web

from streamapp.clock import SystemClock
from streamapp.queries.model import FeedInfo, WorkerInfo
from streamapp.settings import Settings
from streamapp.views.application import application, runner_options
from streamapp.views.auth import new_token
from tests.fakes.queries import MINUTE, FakeQueries, candle, latest

pytestmark = [pytest.mark.browser, pytest.mark.acceptance, pytest.mark.timeout(180)]

BTC, ETH = "coinbase:BTC-USD", "kraken:ETH-EUR"
EVIL = "evil:<img src=x onerror=window.hacked=1>"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,900",
)  # fmt: skip


class Site:
    """The application in a thread of its own, so that the test can drive the browser; can be stopped and started again."""

    def __init__(self, api_tokens: str = "") -> None:
        self.loop = asyncio.new_event_loop()
        self.queries = FakeQueries(clock=SystemClock())
        self.settings = Settings(api_tokens=api_tokens)
        self.port = 0
        self.runner: web.AppRunner | None = None
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.start()

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def start(self) -> None:
        async def start() -> None:
            self.runner = web.AppRunner(
                application(self.queries, self.settings, clock=SystemClock()), **runner_options(self.settings)
            )
            await self.runner.setup()
            await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
            self.port = self.runner.addresses[0][1]

        self.call(start())

    def stop(self) -> None:
        self.call(self.runner.cleanup())

    def close(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def put(self, *arguments: Any, **options: Any) -> None:
        async def put() -> None:
            self.queries.put(*arguments, **options)

        self.call(put())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.load(response)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver is installed here")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(30)
    chrome.set_script_timeout(30)
    yield chrome
    chrome.quit()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    fill(site)
    yield site
    site.close()


def fill(site: Site) -> None:
    """Half an hour of candles of two instruments, and one of everything else."""
    newest = site.queries.clock.now_ms() // MINUTE * MINUTE
    for number in range(30):
        start = newest - (29 - number) * MINUTE
        for key, price in ((BTC, 64_000.5), (ETH, 3_100.25)):
            site.put("candles_1m", key, candle(price + number * 1.5, time=start), start=start, final=number < 29)
    site.put("latest", BTC, latest(64_043.125, newest))
    site.put("latest", ETH, latest(0.000012345, newest))
    signal = {"kind": "price_move", "z": -3.4217, "value": 0.02, "mean": 0.0, "stddev": 0.005, "window_start": newest}
    site.put("signals", ETH, signal)
    beat = site.queries.clock.now_ms()
    site.queries.feed_infos = [
        FeedInfo("coinbase", True, "connected", "", beat, 0),
        FeedInfo("kraken", False, "disconnected", "closed by peer", beat, 17, {"ETH-EUR": 17}),
    ]
    site.queries.worker_info = WorkerInfo(True, (), {"trades": [0, 1, 2, 3]}, {"trades": 37}, 123_456)


def wait(condition: Callable[[], Any], seconds: float = 25) -> Any:
    """What the condition returns once that is true."""
    until = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < until, "the page did not come to show what was expected"
        time.sleep(0.05)


def size(browser: Any, width: int, height: int, *, mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def opened(browser: Any, site: Site, candles: int = 20) -> None:
    browser.get_log("browser")
    browser.get(site.url + "/")
    wait(lambda: browser.execute_script("return document.body.dataset.connection") == "live")
    wait(lambda: browser.execute_script("return document.querySelectorAll('#candle-rows tr').length") >= candles)


def numbers(browser: Any, selector: str) -> dict[str, float | None]:
    """The figures below an element, by field."""
    found = browser.execute_script(
        "return [...document.querySelector(arguments[0]).querySelectorAll('[data-field]')]"
        ".map((one) => [one.dataset.field, one.dataset.value ?? null, one.textContent])",
        selector,
    )
    assert all(text.strip() for _, _, text in found)
    return {field: float(value) for field, value, _ in found if value not in (None, "")}


def complaints(browser: Any) -> list[str]:
    return [line["message"] for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


def test_numbers_on_the_page_equal_the_apis(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    opened(browser, site)
    value = site.read(f"/v1/tables/candles_1m/keys/{BTC}")
    shown = numbers(browser, "#legend")
    assert set(shown) == {"open", "high", "low", "close", "volume", "vwap", "count"}
    assert shown == {field: value["value"][field] for field in shown}

    browser.execute_script("document.querySelector('.as-table').open = true")
    windows = site.read(f"/v1/tables/candles_1m/keys/{BTC}/windows")["items"][-20:]
    for item in windows:
        row = numbers(browser, f"#candle-rows tr[data-start='{item['window']['start']}']")
        assert set(row) == {"open", "high", "low", "close", "volume", "count"}
        assert row == {field: item["value"][field] for field in row}

    for key in (BTC, ETH):
        value = site.read(f"/v1/tables/latest/keys/{key}")["value"]
        row = numbers(browser, f"#latest-rows tr[data-key='{key}']")
        assert row == {field: value[field] for field in ("price", "bid", "ask", "spread")}
    signal = site.read(f"/v1/tables/signals/keys/{ETH}")["value"]
    assert numbers(browser, f"#signal-rows li[data-key='{ETH}']") == {"z": signal["z"]}

    status = site.read("/v1/status")
    for feed in status["feeds"]:
        assert numbers(browser, f"#feed-rows li[data-venue='{feed['venue']}']") == {"gaps": feed["gaps"]}
    assert numbers(browser, ".figures")["worker.lag"] == status["worker"]["lag"]["trades"] == 37
    assert numbers(browser, ".figures")["worker.records_applied"] == status["worker"]["records_applied"]
    assert numbers(browser, "#lag-rows li[data-topic='trades']") == {"lag": 37}
    for table in site.read("/v1/tables")["tables"]:
        assert numbers(browser, f"#table-rows tr[data-table='{table['name']}']") == {"keys": table["keys"]}
    assert "disconnected" in browser.execute_script(
        "return document.querySelector('[data-banner=feed-kraken]').textContent"
    )
    assert complaints(browser) == []


def test_changes_show_without_a_reload(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    opened(browser, site)
    start = site.queries.clock.now_ms() // MINUTE * MINUTE
    site.put("candles_1m", BTC, candle(65_000.75), start=start)
    site.put("latest", BTC, latest(65_432.5, start))
    wait(lambda: numbers(browser, "#legend")["open"] == 65_000.75)
    wait(lambda: numbers(browser, f"#latest-rows tr[data-key='{BTC}']")["price"] == 65_432.5)
    assert "rise" in browser.execute_script(f"return document.querySelector(\"tr[data-key='{BTC}'] .price\").className")
    site.queries.worker_info = WorkerInfo(False, ["latest-2"], {"trades": [0]}, {"trades": 0}, 123_456)
    wait(lambda: browser.execute_script("return document.querySelector('[data-banner=restoring]') !== null"))


def test_another_instrument_and_length_are_followed(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    opened(browser, site)
    browser.execute_script(f"document.querySelector(\"tr[data-key='{ETH}']\").click()")
    expected = site.read(f"/v1/tables/candles_1m/keys/{ETH}")["value"]
    wait(lambda: numbers(browser, "#legend").get("close") == expected["close"])
    assert browser.execute_script("return document.getElementById('key').value") == ETH
    start = site.queries.clock.now_ms() // (5 * MINUTE) * 5 * MINUTE
    site.put("candles_5m", ETH, candle(11.0), start=start)
    browser.execute_script("document.querySelector('[data-table=candles_5m]').click()")
    wait(lambda: numbers(browser, "#legend").get("open") == 11.0)
    browser.execute_script(
        "const box = document.getElementById('filter'); box.value = 'btc'; box.dispatchEvent(new Event('input'))"
    )
    assert browser.execute_script("return document.querySelectorAll('#latest-rows tr').length") == 1


def test_candles_are_really_drawn(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    opened(browser, site)
    painted = """
        const canvas = document.getElementById("chart");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const [r, g, b] = [0x2e, 0xbd, 0x85]; // the rising candles' colour in the dark theme
        document.documentElement.dataset.theme = "dark";
        let count = 0;
        for (let at = 0; at < data.length; at += 4) {
          if (data[at] === r && data[at + 1] === g && data[at + 2] === b) count += 1;
        }
        return count;
    """
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    start = site.queries.clock.now_ms() // MINUTE * MINUTE
    site.put("candles_1m", BTC, candle(64_100.0), start=start)
    wait(lambda: browser.execute_script(painted) > 2_000)


def test_page_says_when_it_is_stale_and_recovers_after_a_restart(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    opened(browser, site)
    site.stop()
    wait(lambda: browser.execute_script("return document.body.dataset.connection") == "stale")
    assert "Stale" in browser.execute_script("return document.getElementById('connection-text').textContent")
    wait(lambda: browser.execute_script("return document.querySelector('[data-banner=stale-page]') !== null"))
    assert numbers(browser, "#legend")["open"]  # the last values stay, marked as old
    start = site.queries.clock.now_ms() // MINUTE * MINUTE
    site.put("candles_1m", BTC, candle(70_000.25), start=start)
    site.start()
    wait(lambda: browser.execute_script("return document.body.dataset.connection") == "live", 40)
    wait(lambda: numbers(browser, "#legend")["open"] == 70_000.25)
    wait(lambda: browser.execute_script("return document.querySelector('[data-banner=stale-page]') === null"))


@pytest.mark.parametrize("width", [320, 390])
def test_phone_has_no_horizontal_scroll(browser: Any, site: Site, width: int) -> None:
    site.put("latest", "binance:AVERYLONGINSTRUMENTNAME-USDT", latest(123_456.789))
    site.put("candles_1m", "binance:AVERYLONGINSTRUMENTNAME-USDT", candle(123_456.789), start=MINUTE)
    size(browser, width, 800, mobile=True)
    opened(browser, site, candles=1)  # the long name comes first, and so is the one in the title
    assert "AVERYLONG" in browser.execute_script("return document.getElementById('chart-title').textContent")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    size(browser, 1400, 900)


def test_text_from_a_feed_stays_text(browser: Any, site: Site) -> None:
    size(browser, 1400, 900)
    site.put("latest", EVIL, latest(1.0))
    site.put("signals", EVIL, {"kind": "<b>x</b>", "z": 4.0, "value": 1, "mean": 0, "stddev": 1, "window_start": 0})
    site.queries.feed_infos = [FeedInfo("<i>v</i>", False, "<u>s</u>", "<script>window.hacked=1</script>", None, 1)]
    opened(browser, site)
    wait(lambda: "<script>" in browser.execute_script("return document.getElementById('feed-rows').textContent"))
    assert browser.execute_script("return window.hacked") is None
    assert (
        browser.execute_script(
            "return document.querySelectorAll('main img, main b, main i, main u, main script').length"
        )
        == 0
    )


def test_empty_board_says_what_it_waits_for(browser: Any) -> None:
    site = Site()
    try:
        size(browser, 1400, 900)
        browser.get(site.url + "/")
        wait(lambda: browser.execute_script("return document.body.dataset.connection") == "live")
        for panel in ("latest", "signals", "feeds", "chart"):
            assert browser.execute_script(f"return document.getElementById('{panel}-empty').hidden") is False
        start = site.queries.clock.now_ms() // MINUTE * MINUTE
        site.put("candles_1m", BTC, candle(5.0), start=start)
        site.put("latest", BTC, latest(5.0))
        wait(lambda: numbers(browser, "#legend").get("open") == 5.0)
    finally:
        site.close()


def test_login_opens_the_board_and_keeps_the_token_out_of_reach(browser: Any) -> None:
    text, entry = new_token("desk", ["read"])
    site = Site(api_tokens=entry)
    try:
        fill(site)
        size(browser, 1400, 900)
        browser.get(site.url + "/")
        wait(lambda: browser.execute_script("return !document.getElementById('login-view').hidden"))
        field = browser.find_element("id", "token")
        field.send_keys("wrong\n")
        wait(lambda: browser.execute_script("return document.getElementById('login-error').textContent"))
        field.send_keys(text + "\n")
        wait(lambda: browser.execute_script("return document.body.dataset.connection") == "live")
        assert text not in browser.execute_script(
            "return document.cookie + location.href + JSON.stringify(localStorage)"
        )
        assert text not in browser.execute_script("return JSON.stringify(performance.getEntries())")
        browser.find_element("id", "logout").click()
        wait(lambda: browser.execute_script("return !document.getElementById('login-view').hidden"))
    finally:
        site.close()


def test_page_loads_nothing_from_elsewhere(browser: Any, site: Site) -> None:
    opened(browser, site)
    names = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert names
    assert [name for name in names if not name.startswith(site.url)] == []
    scripts = {path.name for path in files("streamapp.views").joinpath("static").iterdir() if path.name.endswith(".js")}
    assert scripts <= {name.rpartition("/")[2] for name in names}
