"""A real report in a real browser, driven over the DevTools protocol."""

import asyncio
import base64
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium")
LOOK = """(async () => {
  if (document.readyState !== "complete") await new Promise(done => addEventListener("load", done));
  const videos = [...document.querySelectorAll("video")];
  await Promise.all(videos.map(video => video.readyState > 1 || video.error ? 0 : new Promise(done => {
    video.onloadeddata = video.onerror = done; setTimeout(done, 20000) })));
  return {
    title: document.title,
    videos: videos.map(
      video => ({ready: video.readyState > 1, width: video.videoWidth, seconds: video.duration})),
    pictures: [...document.images].map(picture => picture.naturalWidth),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  } })()"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report") / "run"
    settings = ["policy=random", "episodes=1", "max_steps=8", f"output={output}"]
    subprocess.run([sys.executable, "-m", "emu_agent", "run", *settings], check=True)
    return output / "report.html"


@contextmanager
def browser(home: Path) -> Iterator[str]:
    """A headless browser without a page; yields the address of its DevTools."""
    assert CHROMIUM is not None
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(
        [CHROMIUM, f"--user-data-dir={home}", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address, deadline = home / "DevToolsActivePort", time.monotonic() + 60
    try:
        while not (address.exists() and len(address.read_text().split()) == 2):
            assert time.monotonic() < deadline, "the browser did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{address.read_text().split()[0]}"
    finally:
        process.terminate()
        process.wait(30)


class Tab:
    """The browser's page: answers to what it is asked, and what else it reported."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.asked, self.events = socket, 0, []

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.asked += 1
        await self.socket.send_json({"id": self.asked, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == self.asked:
                return message["result"]
            self.events.append(message)

    async def screenshot(self, scheme: str) -> np.ndarray:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", features=features)
        shot = base64.b64decode((await self.ask("Page.captureScreenshot"))["data"])
        return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)


async def look_at(page: Path, address: str) -> tuple[dict[str, Any], list[dict], dict[str, np.ndarray]]:
    """What the page says of itself, the browser's events, and screenshots by colour scheme."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/json/list") as answer:
            tabs = await answer.json()
        socket = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with session.ws_connect(socket, max_msg_size=0) as connection:
            tab = Tab(connection)
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.ask(f"{domain}.enable")
            size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await tab.ask("Emulation.setDeviceMetricsOverride", **size)
            await tab.ask("Page.navigate", url=page.as_uri())
            seen = await tab.ask("Runtime.evaluate", expression=LOOK, awaitPromise=True, returnByValue=True)
            shots = {scheme: await tab.screenshot(scheme) for scheme in ("light", "dark")}
            return seen["result"]["value"], tab.events, shots


def requests(events: list[dict]) -> list[str]:
    """Addresses that were asked for; what is inside the page is no request."""
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]


def complaints(events: list[dict]) -> list[dict]:
    """What a person would find in the console."""
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [event for event in events if event["method"] in kinds]


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_browser_shows_the_report_without_a_network(report: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as address:
        seen, events, shots = asyncio.run(look_at(report, address))
    assert seen["title"] == "robosuite_lift · random · imagine never"
    assert [video["ready"] for video in seen["videos"]] == [True]
    assert seen["videos"][0]["width"] > 400
    assert seen["videos"][0]["seconds"] >= 8 / 20
    assert all(width > 0 for width in seen["pictures"])
    assert seen["overflow"] <= 0
    assert requests(events) == [report.as_uri()]
    assert complaints(events) == []
    corners = {scheme: shot[:8, :8].mean() for scheme, shot in shots.items()}
    assert corners["light"] > 230
    assert corners["dark"] < 40


@needs_browser
@pytest.mark.slow
def test_a_page_with_mistakes_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    picture = '<img src="http://127.0.0.1:9/x.png">'
    page.write_text(f'<!doctype html>{picture}<p style="width: 3000px">wide</p><script>nonsense()</script>')
    with browser(tmp_path / "home") as address:
        seen, events, _ = asyncio.run(look_at(page, address))
    assert seen["pictures"] == [0]
    assert seen["overflow"] > 0
    assert requests(events) == [page.as_uri(), "http://127.0.0.1:9/x.png"]
    assert any("nonsense" in str(event) for event in complaints(events))
