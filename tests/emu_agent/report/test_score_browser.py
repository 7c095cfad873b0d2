"""The page of a scored folder in a real browser: it is quiet, and one slider moves all three pictures."""

import asyncio
import importlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import numpy as np
import pytest

from emu_agent.report.evaluation.page import write_score_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIRST = "document.querySelector('.sample[data-stops]')"
STATE = f"""(() => {{
  const sample = {FIRST}, slider = sample.querySelector("input");
  return {{value: Number(slider.value), last: Number(slider.max), told: slider.getAttribute("aria-valuetext"),
    alts: [...sample.querySelectorAll("img")].map(picture => picture.alt),
    box: sample.querySelector(".views").getBoundingClientRect().toJSON()}} }})()"""
LOADED = """(async () => {
  if (document.readyState !== "complete") await new Promise(done => addEventListener("load", done));
  await Promise.all([...document.images].map(picture => picture.decode()));
  return {pictures: [...document.images].map(picture => picture.naturalWidth),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    dead: getComputedStyle(document.querySelector(".time")).display === "none"} })()"""
HOME, RIGHT = ("Home", 36), ("ArrowRight", 39)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def tools() -> ModuleType:
    """How the other report is looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return importlib.import_module("test_browser")


async def value(tab: Any, expression: str) -> Any:
    asked = await tab.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
    return asked["result"].get("value")


async def press(tab: Any, key: tuple[str, int]) -> None:
    for kind in ("keyDown", "keyUp"):
        await tab.ask("Input.dispatchKeyEvent", type=kind, key=key[0], windowsVirtualKeyCode=key[1])


def views(shot: np.ndarray, box: dict[str, float]) -> np.ndarray:
    top, left = round(box["top"]), round(box["left"])
    return shot[top : top + round(box["height"]), left : left + round(box["width"])]


async def use(tools: ModuleType, page: Path, address: str) -> dict[str, Any]:
    """What a person with a keyboard sees."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/json/list") as answer:
            tabs = await answer.json()
        socket = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with session.ws_connect(socket, max_msg_size=0) as connection:
            tab = tools.Tab(connection)
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.ask(f"{domain}.enable")
            size = {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await tab.ask("Emulation.setDeviceMetricsOverride", **size)
            await tab.ask("Page.navigate", url=page.as_uri())
            seen: dict[str, Any] = {"page": await value(tab, LOADED)}
            await value(tab, f"{FIRST}.scrollIntoView(); {FIRST}.querySelector('input').focus(); 0")
            for name, key in (("last", None), ("first", HOME), ("second", RIGHT)):
                if key is not None:
                    await press(tab, key)
                seen[name] = await value(tab, STATE)
                seen[f"{name} shot"] = views(await tab.screenshot("light"), seen[name]["box"])
            await value(tab, "scrollTo(0, 0)")
            for scheme in ("light", "dark"):
                seen[scheme] = await tab.screenshot(scheme)
            await value(tab, f"{FIRST}.querySelector('button').click()")
            seen["played"] = await value(
                tab, f"new Promise(done => setTimeout(() => done({STATE}.value), 1500))"
            )
            return {**seen, "events": tab.events}


def test_the_page_is_quiet_and_its_slider_moves_the_pictures(
    scored: Path, tools: ModuleType, tmp_path: Path
) -> None:
    report = write_score_report(scored)
    with tools.browser(tmp_path) as address:
        seen = asyncio.run(use(tools, report, address))
    assert tools.requests(seen["events"]) == [report.as_uri()]
    assert tools.complaints(seen["events"]) == []
    assert seen["page"]["overflow"] <= 0
    assert not seen["page"]["dead"]
    assert all(width > 0 for width in seen["page"]["pictures"])
    last, first, second = seen["last"], seen["first"], seen["second"]
    assert (last["value"], first["value"], second["value"]) == (last["last"], 0, 1)
    assert first["told"] == "frame 0; imagined for frame 0"
    assert last["alts"] != first["alts"]
    thirds = [np.array_split(seen[f"{name} shot"].astype(int), 3, axis=1) for name in ("last", "first")]
    changes = [np.abs(late - early).max() for late, early in zip(*thirds, strict=True)]
    assert all(change > 30 for change in changes), "truth, imagination and difference all move"
    assert seen["played"] != second["value"], "the button plays"
    assert seen["light"][:8, :8].mean() > 230
    assert seen["dark"][:8, :8].mean() < 40
