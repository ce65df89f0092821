"""A picture of a report's page, as docs/report.md shows: needs `pip install playwright` and Debian's Chromium.

python scripts/picture_page.py RUN/report.html docs/report.png --width 1280
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

# It asks nobody anything: no updates, no account.
CHROMIUM = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, help="a .png")
    parser.add_argument("--width", type=int, default=1280, help="of the window in pixels")
    parser.add_argument("--until", help="the id of the section that the picture ends before; default: the whole page")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM))
        page = browser.new_page(
            viewport={"width": options.width, "height": 900}, color_scheme="dark" if options.dark else "light"
        )
        page.goto(options.page.absolute().as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        height = page.evaluate("document.documentElement.scrollHeight")
        if options.until is not None:
            box = page.locator(f"#{options.until}").bounding_box()
            if box is None:
                parser.error(f"--until {options.until}: no such section")
            height = box["y"]
        page.set_viewport_size({"width": options.width, "height": int(height)})
        page.wait_for_timeout(500)  # the matrix is drawn anew for the new size
        page.screenshot(path=options.picture)
        browser.close()


if __name__ == "__main__":
    main()
