"""A real browser for tests: Chromium without a window, driven by selenium.

It needs selenium, chromium and chromedriver, and axe-core in docs/node_modules. What is missing is
said and the tests are skipped; with SCRATCHVAE_REQUIRE_BROWSER=1 they fail.
"""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

WIDTHS = (390, 1400)  # a phone and a desktop window, CSS pixels
MODES = ("light", "dark")
AXE = Path(__file__).resolve().parents[1] / "docs" / "node_modules" / "axe-core" / "axe.min.js"


def needed(found, what):
    """Return `found`, or skip because it is missing; fail where it must not be."""
    if found:
        return found
    if os.environ.get("SCRATCHVAE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"there is no {what}")
    pytest.skip(f"there is no {what}")


class Browser:
    """Chromium with what these tests ask of it again and again."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def command(self, name, **options):
        return self.driver.execute_cdp_cmd(name, options)

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def open(self, page, width=1400, mode="light", script=True, query=""):
        """Load a page afresh; nothing of an earlier one is left in log or storage."""
        # Not "mobile": that would widen the window to what overflows, and hide it.
        self.command(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        features = [{"name": "prefers-color-scheme", "value": mode}]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        self.command("Storage.clearDataForOrigin", origin="file://", storageTypes="all")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get((self.folder / page).as_uri() + query)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return self.find(selector).get_property("textContent").strip()

    def touch(self, kind, *points):
        """Touch the screen, and wait until the page has drawn what that did."""
        points = [{"x": x, "y": y} for x, y in points]
        self.command("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)
        self.driver.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        )

    def set(self, selector, value):
        """Move a slider as a hand does: its value, then the event."""
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.find(selector),
            value,
        )

    def requested(self):
        """Return the addresses that were asked for since the page was opened."""
        log = self.driver.get_log("performance")
        entries = [json.loads(entry["message"])["message"] for entry in log]
        asked = [e for e in entries if e["method"] == "Network.requestWillBeSent"]
        return [e["params"]["request"]["url"] for e in asked]

    def errors(self):
        """Return what the page complained of on the console."""
        log = self.driver.get_log("browser")
        return [e["message"] for e in log if e["level"] == "SEVERE"]

    def violations(self):
        """Return what axe-core finds that is serious or critical, by all of its rules."""
        text = AXE.exists() and AXE.read_text()
        self.run(needed(text, f"axe-core in {AXE.parent.parent}: make docs"))
        # In the middle of a transition a colour is neither the old nor the new one.
        self.run("document.getAnimations().forEach((animation) => animation.finish())")
        # Of what passes one node a rule is enough, instead of megabytes.
        result = self.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(arguments[0])"
        )
        assert result["passes"]  # it did look at something
        return [
            (v["id"], v["help"], [node["target"] for node in v["nodes"]])
            for v in result["violations"]
            if v["impact"] in ("serious", "critical")
        ]


def chromiums():
    """Yield one Chromium, and end it afterwards: the body of a fixture."""
    chromium = needed(shutil.which("chromium") or shutil.which("google-chrome"), "chromium")
    chromedriver = needed(shutil.which("chromedriver"), "chromedriver")
    needed(importlib.util.find_spec("selenium"), "selenium")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # as root it does not start with one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(600)  # axe-core takes long where the machine has much else to do
    yield driver
    driver.quit()
