"""A page in headless Chromium, as a person would open it; requests outside the file are refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "ENCYCLO_REQUIRE_CHROMIUM"
"""Set where a missing Chromium is a failure and no reason to skip, as .ci/run does."""


def find_chromium() -> str:
    """Return Debian's Chromium; skip without it, or fail where it is required."""
    found = shutil.which("chromium")
    if found is None:
        reason = "Debian's chromium is not installed (apt-get install chromium)"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    return found


@dataclass
class Opened:
    """An open page, and the errors in it."""

    page: Any
    path: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def width(self) -> int:
        """How wide the page is: more than the window means that it scrolls sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@contextmanager
def open_page(browser: Any, path: Path, width: int = 1100, **settings: Any) -> Iterator[Opened]:
    """Open a file; check that it requested nothing else and logged no error."""
    context = browser.new_context(viewport={"width": width, "height": 844}, offline=True, **settings)
    page = context.new_page()
    page.set_default_timeout(5000)
    opened = Opened(page, path)
    page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (opened.complaints.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(path.as_uri())
    try:
        yield opened
        assert opened.complaints == [], opened.complaints
        assert {url.split("#")[0] for url in opened.requests} == {path.as_uri()}
    finally:
        context.close()
