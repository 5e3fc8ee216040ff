"""Pages of the browser, used again: one keeps what it has compiled, and opens in a quarter of the
time of a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


class Pages:
    """Pages to take and to give back.

    Args:
        browser: Whose.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._free: dict[str, list[Page]] = {}

    def take(
        self, scheme: str = "light", width: int = 1400, height: int = 1000, origin: str = "file"
    ) -> Page:
        """A blank page.

        Args:
            scheme: Whether it is light or dark.
            width: Of the window.
            height: Likewise.
            origin: What it is for: pages of files and of servers are in processes of their own.
        """
        free = self._free.setdefault(origin, [])
        page = free.pop() if free else self._browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(media="screen", color_scheme=scheme)  # type: ignore[arg-type]
        page.mouse.move(0, 0)
        return page

    def give_back(self, page: Page, origin: str = "file") -> None:
        """Ends what is in the page, which nobody listens to any more."""
        page.context.set_offline(False)
        page.goto("about:blank")
        self._free[origin].append(page)
