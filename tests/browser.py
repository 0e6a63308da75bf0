"""A real chromium for the tests of pages, driven by playwright.

Where either is missing, the tests are skipped; with NEEDS_BROWSER in the environment, as make sets it, they fail.
"""

import os
import shutil
from contextlib import contextmanager

import pytest


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL, no GPU


@contextmanager
def open_page(width, height):
    """A page of this size in pixels."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pages need playwright: make test-view")
    if BROWSER is None:
        missing = pytest.fail if os.environ.get("NEEDS_BROWSER") else pytest.skip
        missing("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()
