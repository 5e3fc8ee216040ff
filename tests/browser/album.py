"""Pictures of pages, compared with those somebody has looked at."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

GOLDENS = Path(__file__).parent / "goldens"
# Fonts and antialiasing differ between machines: pictures are compared as mosaics. A tile is
# about 20 pixels wide.
TILES = (70, 50)
MOST_MEAN = 0.012
MOST_TILE = 0.25
ALL_OF_IT = ".panel { content-visibility: visible !important }"

# Half the size is enough to be looked at and small enough to be kept.
HALF = """async (data) => {
    const image = new Image();
    image.src = "data:image/png;base64," + data;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width / 2, image.height / 2];
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", 0.6).split(",")[1];
}"""
COMPARE = """async ([first, second, [width, height]]) => {
    const tiles = async (data) => {
        const image = new Image();
        image.src = "data:image/jpeg;base64," + data;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [width, height];
        const context = canvas.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(image, 0, 0, width, height);
        return context.getImageData(0, 0, width, height).data;
    };
    const [a, b] = [await tiles(first), await tiles(second)];
    let [sum, worst] = [0, 0];
    for (let i = 0; i < a.length; i += 4) {
        let d = 0;
        for (let c = 0; c < 3; c++) d += Math.abs(a[i + c] - b[i + c]) / 765;
        sum += d;
        worst = Math.max(worst, d);
    }
    return [sum / (width * height), worst];
}"""


class Album:
    """Pictures of a page, compared in a blank one."""

    def __init__(self, blank: Page) -> None:
        self.blank = blank

    def picture(self, page: Page) -> bytes:
        # What is below the window, too.
        whole = page.screenshot(full_page=True, style=ALL_OF_IT)
        half: str = self.blank.evaluate(HALF, base64.b64encode(whole).decode())
        return base64.b64decode(half)

    def differ(self, first: bytes, second: bytes) -> tuple[float, float]:
        """Mean and largest difference of the tiles, 0 to 1."""
        pictures = [base64.b64encode(p).decode() for p in (first, second)]
        mean, worst = self.blank.evaluate(COMPARE, [*pictures, TILES])
        return mean, worst

    def check(self, page: Page, name: str) -> bytes:
        golden = GOLDENS / f"{name}.jpg"
        now = self.picture(page)
        if os.environ.get("SLTRACE_UPDATE_GOLDENS"):
            GOLDENS.mkdir(exist_ok=True)
            golden.write_bytes(now)
        mean, worst = self.differ(golden.read_bytes(), now)
        assert mean < MOST_MEAN, f"{name} differs from {golden}"
        assert worst < MOST_TILE, f"a part of {name} differs from {golden}"
        return now
