"""Screenshots of the dashboard for README and docs/dashboard.md, by Debian's chromium.

python experiments/main.py dashboard SPEC… --port 5000        # leave it running
python docs/figures/dashboard.py http://127.0.0.1:5000/acdis/ table3 syn conv paper:ACDIS
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

WORDS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"


def main(address: str, spec: str, row: str, beside: str, against: str) -> None:
    """One picture a page, 1280 wide, one of them dark: a row, another beside it, and what is subtracted."""
    folder = Path(__file__).parent
    table, subsets = f"table?spec={spec}", f"subsets?spec={spec}&row={row}"
    pictures = (
        ("overview", "", 1280, 700, "light"),
        ("table", table, 1280, 800, "light"),
        ("subsets", subsets, 1280, 900, "light"),
        ("difference", f"{subsets}&against={against}", 1280, 900, "dark"),
        ("cases", f"cases?spec={spec}", 1280, 2300, "light"),
        ("curves", f"curves?spec={spec}&row={row}&row={beside}", 1280, 1000, "light"),
        ("run", f"run?spec={spec}", 1280, 1000, "light"),
    )
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as started:
        program = shutil.which("chromium")
        browser = started.chromium.launch_persistent_context(
            profile, executable_path=program, headless=True, args=WORDS.split()
        )
        for name, where, width, height, theme in pictures:
            page = browser.new_page()
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": height})
            page.goto(address + where)
            if name == "run":  # the page asks which: the last row's
                page.locator("main table a").last.click()
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"dashboard-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
