"""The page in a real browser: the slider goes to its frame, and follows the video while it plays."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lab.render import Scrub, Section, page, save_video

FPS, FRAMES = 10, 12
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed here, e.g. apt-get install chromium")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=list(OFFLINE))


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page with one video of twelve greys, from black on, that starts at the fourth."""
    size = save_video(
        (Image.new("RGB", (64, 48), (20 * n,) * 3) for n in range(FRAMES)), tmp_path / "a.mp4", {}, fps=FPS
    )
    labels = [f"value {n}" for n in range(FRAMES)]
    scrub = Scrub(tmp_path / "a.mp4", size, "greys", labels, FPS, start=3)
    page(tmp_path / "index.html", "Greys", [Section("One", scrubs=[scrub])])
    tab = browser.new_page()
    tab.wrong = []
    tab.on("console", lambda message: tab.wrong.append(message.text))
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.goto((tmp_path / "index.html").as_uri())
    wait(tab, "document.querySelector('video').readyState >= 2 && !document.querySelector('video').seeking")
    yield tab
    tab.close()


def wait(tab: Any, condition: str) -> None:
    """Until it holds; playwright's own way evaluates strings, which the page's policy forbids."""
    for _ in range(200):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"{condition} never came")


def grey(tab: Any) -> int:
    """The level in the middle of what the video shows."""
    level: int = tab.evaluate(
        """() => { const c = document.createElement("canvas"), v = document.querySelector("video");
        c.width = c.height = 8; const g = c.getContext("2d"); g.drawImage(v, 0, 0, 8, 8);
        return g.getImageData(4, 4, 1, 1).data[0]; }"""
    )
    return level


def test_the_slider_goes_to_its_frame(opened: Any) -> None:
    assert opened.locator("output").inner_text() == "value 3" and abs(grey(opened) - 60) < 6
    for frame in (9, 0, 11):
        opened.locator("input[type=range]").fill(str(frame))
        wait(opened, "!document.querySelector('video').seeking")
        opened.wait_for_timeout(50)
        assert opened.locator("output").inner_text() == f"value {frame}"
        assert abs(grey(opened) - 20 * frame) < 6
    assert opened.wrong == []


def test_the_slider_follows_the_video(opened: Any) -> None:
    opened.locator("input[type=range]").fill("0")
    assert opened.evaluate("document.querySelector('video').controls") is False  # they would cover the frame
    opened.evaluate(
        """() => { const [video, button] = ["video", "button"].map((tag) => document.querySelector(tag));
        window.said = []; video.addEventListener("play", () => window.said.push(button.textContent)); }"""
    )
    opened.get_by_role("button", name="Play").click()
    wait(opened, "document.querySelector('video').ended")
    assert int(opened.locator("input[type=range]").input_value()) >= FRAMES - 2
    assert opened.evaluate("window.said") == ["Pause"]
    assert opened.get_by_role("button", name="Play").is_visible()
    assert opened.wrong == []


def test_nothing_is_cut_on_a_narrow_screen(opened: Any) -> None:
    opened.set_viewport_size({"width": 320, "height": 640})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 320
