"""Frames per second of the player in a browser: ``python -m benchmarks.play RUN``.

Serves the run as ``worldmodel play`` does, opens the page in headless chromium, and lets each driver run as fast as the
page asks (60 frames/s) and at the usual pace (10). Prints a JSON object as its last line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CORES = len(os.sched_getaffinity(0))  # asked before threads are bound
WARM, COUNTED = 10, 60  # frames
DATA = "document.querySelector('.wm-player').dataset"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    command = [sys.executable, "-m", "worldmodel", "play", "--run", str(options.run), "--port", "0"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        found = re.search(r"http://\S+", served.stdout.readline())
        if found is None:
            sys.exit("the player did not start")
        print(json.dumps({"run": options.run.name, **measure(found[0]), "cores": CORES}))
    finally:
        served.terminate()
        served.wait()


def measure(address: str) -> dict[str, Any]:
    """Frames per second by driver and pace, and sides of dream and truth in pixels."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_function(f"() => {DATA.replace('.dataset', '')} && {DATA}.who === 'record'", timeout=120_000)
        rates: dict[str, Any] = {}
        drivers = page.locator("[data-does]").evaluate_all("all => all.map(x => x.dataset.does)")
        for who in [x for x in drivers if x in ("me", "actor", "planner")]:
            for name, pace in (("fps", 10), ("fps_most", 60)):
                page.get_by_label("speed").fill(str(pace))
                page.locator(f"[data-does='{who}']").click()
                rates.setdefault(name, {})[who] = round(paced(page), 2)
        size = "name => document.querySelector(`.wm-${name}`).width"
        rates |= {name: page.evaluate(size, name) for name in ("dream", "truth")}
        browser.close()
    return rates


def paced(page: Any) -> float:
    """Frames per second of a dream that begins anew and plays."""
    page.keyboard.press("r")
    page.wait_for_function(f"() => {DATA}.step === '0'")
    page.keyboard.press(" ")
    page.wait_for_function(f"() => +{DATA}.step >= {WARM}", timeout=120_000)
    rate = page.evaluate(
        f"""async () => {{
            const step = () => +{DATA}.step, begun = performance.now(), first = step();
            while (step() < first + {COUNTED}) await new Promise(requestAnimationFrame);
            return 1000 * (step() - first) / (performance.now() - begun);
        }}"""
    )
    page.keyboard.press(" ")
    return float(rate)


if __name__ == "__main__":
    main()
