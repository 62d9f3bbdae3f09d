"""Screenshots of the pages, for people to look at; and that they are what they should be."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from playwright.async_api import Page

FOLDER = "ZAP_GATEWAY_SCREENSHOTS"
"""The environment variable that names the folder where they go."""

_PNG = b"\x89PNG\r\n\x1a\n"
_OVERFLOW = """() => {
    const width = document.documentElement.clientWidth;
    return document.documentElement.scrollWidth <= width && document.body.scrollWidth <= width;
}"""


class Look(NamedTuple):
    """A width in CSS pixels, and a colour scheme."""

    width: int
    scheme: str

    @property
    def options(self) -> dict[str, object]:
        """Of a browser's context."""
        return {"viewport": {"width": self.width, "height": 900}, "color_scheme": self.scheme}

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}"


LOOKS = [Look(width, scheme) for width in (360, 1600) for scheme in ("light", "dark")]


def folder(otherwise: Path) -> Path:
    """Where screenshots go."""
    named = Path(os.environ.get(FOLDER) or otherwise)
    named.mkdir(parents=True, exist_ok=True)
    return named


async def take(page: Page, path: Path, *, whole: bool = True) -> None:
    """Take one, of the whole page or of what is in view. Nothing stands out sideways on it."""
    assert await page.evaluate(_OVERFLOW), "the page is wider than its window"
    data = await page.screenshot(path=path, full_page=whole, animations="disabled")
    assert data.startswith(_PNG)
    assert len(data) > 5_000, "there is something on it"
    width = await page.evaluate("window.innerWidth")
    assert struct.unpack(">I", data[16:20]) == (width,)
