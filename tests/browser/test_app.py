"""
The app in a real browser: the main path of each tab, masks that make the round trip at three sizes, a phone-sized
screen, the keyboard alone, and no request that leaves the machine. Screenshots are left in `runs/browser/`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio", reason="the extra `app` is not installed")
pytest.importorskip("selenium", reason="the extra `browser` is not installed; `make test-browser` installs it")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
if not (CHROMIUM and CHROMEDRIVER):
    pytest.skip("there is no Chromium with its chromedriver", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from datasets_script.annotation.queue import AnnotationQueue, QueueSettings  # noqa: E402
from datasets_script.annotation.records import Mark, Marking  # noqa: E402
from datasets_script.app.main import AppSettings, launch  # noqa: E402
from datasets_script.engine.settings import InjectionSettings  # noqa: E402
from datasets_script.pairs.storage import read_pairs  # noqa: E402

from ..helpers.engine_runs import SmallInjector  # noqa: E402
from ..helpers.paths import ROOT  # noqa: E402


SCREENSHOTS = ROOT / "runs" / "browser"
SIZES = [(256, 256), (427, 640), (1024, 683)]
DESKTOP, PHONE = (1280, 1400), (390, 844)
PATIENCE = 180


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    # The image editor draws with WebGL, which SwiftShader gives without a graphics card.
    switches = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader")
    for switch in (*switches, "--enable-unsafe-swiftshader", "--disable-background-networking", "--hide-scrollbars"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
    driver.set_window_size(*DESKTOP)
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def last_view(driver: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave a picture of what a failed test saw last."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        screenshot(driver, f"failed-{request.node.name}")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> AnnotationQueue:
    folder = tmp_path_factory.mktemp("queue")
    drafts = {}
    for number, (size, area) in enumerate(zip(SIZES, ((60, 200), (100, 300), (200, 500)), strict=True)):
        photo.resize(size).save(folder / f"{number}.png")
        mask = np.zeros(size[::-1], bool)
        mask[area[0] : area[0] + 37, area[0] : area[1]] = True
        mask[area[0] + 1, area[0] + 1] = mask[area[0] + 37, area[0] + 5] = False
        marks = (Mark("duplication", (5.0, 7.0, 40.0, 50.0), "a box"), Mark.of_mask("fusion", mask, "an area"))
        drafts[f"{number}.png"] = Marking(marks, "Two flaws.")
    queue = AnnotationQueue.create(folder / "queue", QueueSettings())
    queue.add([folder / f"{number}.png" for number in range(3)], {"0.png": "an astronaut"}, drafts)
    return queue


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, queue: AnnotationQueue) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("app")
    SmallInjector("embedded", InjectionSettings(), device="cpu").pipeline.save_pretrained(folder / "model")
    settings = AppSettings(folder / "kept", queue.folder, model=str(folder / "model"), device="cpu")
    app, url = launch(settings, block=False)
    yield url, folder / "kept"
    app.close()


def wait_for(found: Callable[[], Any], what: str) -> Any:
    """Wait until something is found; elements may be replaced while they are looked at."""
    from selenium.common.exceptions import WebDriverException

    end, last = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        try:
            if result := found():
                return result
        except WebDriverException as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE} s for {what}") from last


def element(driver: Any, selector: str) -> Any:
    return wait_for(lambda: driver.find_element(By.CSS_SELECTOR, selector), selector)


def fill(driver: Any, selector: str, text: str) -> None:
    """Type into a field until it holds: a page that is still loading sets its fields once more."""

    def filled() -> bool:
        field = driver.find_element(By.CSS_SELECTOR, selector)
        if field.get_attribute("value") != text:
            field.clear()
            field.send_keys(text, Keys.TAB)
        time.sleep(1)
        return bool(driver.find_element(By.CSS_SELECTOR, selector).get_attribute("value") == text)

    wait_for(filled, f"{text!r} in {selector}")


def click(driver: Any, selector: str) -> None:
    def clicked() -> bool:
        one = driver.find_element(By.CSS_SELECTOR, selector)
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", one)
        one.click()
        return True

    wait_for(clicked, f"a click on {selector}")


def text_with(driver: Any, selector: str, text: str) -> str:
    return wait_for(
        lambda: text in (shown := driver.find_element(By.CSS_SELECTOR, selector).text) and shown,
        f"{text!r} at {selector}",
    )


def open_tab(driver: Any, url: str, name: str) -> None:
    driver.get(url)
    wait_for(
        lambda: [
            tab.click() or tab for tab in driver.find_elements(By.CSS_SELECTOR, "[role=tab]") if tab.text == name
        ],
        f"the tab {name}",
    )


def screenshot(driver: Any, name: str, top: bool = True) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if top:
        driver.execute_script("window.scrollTo(0, 0)")
    time.sleep(0.5)  # transitions
    assert driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def hosts(driver: Any) -> set[str]:
    """Return the hosts that pages have asked since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    return {urlsplit(url).hostname or "" for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}


def test_an_artifact_is_painted_made_and_kept(
    driver: Any, served: tuple[str, Path], photo: Image.Image, tmp_path: Path
) -> None:
    url, kept = served
    photo.save(tmp_path / "me.png")
    open_tab(driver, url, "Make")
    element(driver, "#make-photo input[type=file]").send_keys(str(tmp_path / "me.png"))
    text_with(driver, "#make-status", "is ready")
    canvas = element(driver, "#make-editor canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    wait_for(lambda: canvas.size["width"] > 100, "the editor's canvas")
    time.sleep(1)  # the editor fits the image in
    strokes = ActionChains(driver, duration=100).move_to_element_with_offset(canvas, -60, -20).click_and_hold()
    for x, y in ((60, -20), (60, 10), (-60, 10), (-60, 40), (60, 40)):
        strokes = strokes.move_to_element_with_offset(canvas, x, y)
    strokes.release().perform()
    click(driver, "#make-tool label:nth-of-type(2)")
    click(driver, "#make-go")
    text_with(driver, "#make-status", "pixels changed visibly")
    screenshot(driver, "make-desktop")
    click(driver, "#make-keep")
    text_with(driver, "#make-status", "now holds 1 pairs")
    (pair,) = read_pairs(kept)
    assert pair.source_id == "me.png" and pair.artifacts[0].type == "omission"
    assert hosts(driver) == {"127.0.0.1"}


def test_masks_make_the_round_trip_at_three_sizes_by_keyboard(
    driver: Any, served: tuple[str, Path], queue: AnnotationQueue
) -> None:
    url, _ = served
    open_tab(driver, url, "Annotate")
    name = element(driver, "#annotate-name input, #annotate-name textarea")
    name.send_keys("ann", Keys.TAB)
    start = element(driver, "#annotate-start")
    start.send_keys(Keys.ENTER)
    for number in range(3):
        text_with(driver, "#annotate-status", f"{number}.png")
        if number == 0:
            text_with(driver, "#annotate-status", "Prompt: an astronaut")
            wait_for(lambda: driver.find_element(By.CSS_SELECTOR, "#annotate-image img").size["width"], "the image")
            screenshot(driver, "classify-desktop")
        driver.find_element(By.TAG_NAME, "body").send_keys("y")
    text_with(driver, "#annotate-status", "Nothing is left")
    assert {item.verdict for item in queue.items()} == {"yes"}

    click(driver, "#annotate-phase label:nth-of-type(2)")
    for number in range(3):
        text_with(driver, "#annotate-status", f"{number}.png")
        wait_for(lambda: driver.find_element(By.CSS_SELECTOR, "#annotate-boxes canvas").size["width"] > 100, "boxes")
        time.sleep(2)  # the hidden editor takes its layer
        if number == 0:
            screenshot(driver, "mark-desktop")
        click(driver, "#annotate-submit")
    text_with(driver, "#annotate-status", "Nothing is left")
    for item, answer in zip(queue.items(), queue.answers("mark"), strict=True):
        assert isinstance(answer.content, Marking) and item.draft is not None
        assert answer.content == item.draft, f"{item.id} of {item.size} changed on its way"
    assert hosts(driver) == {"127.0.0.1"}


@pytest.mark.parametrize(("tab", "button"), [("Make", "go"), ("Detect", "decide"), ("Annotate", "start")])
def test_pages_fit_a_phone(driver: Any, served: tuple[str, Path], tab: str, button: str) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PHONE[0], "height": PHONE[1], "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        open_tab(driver, served[0], tab)
        element(driver, f"#{tab.lower()}-{button}")
        time.sleep(1)
        wide, width = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        screenshot(driver, f"{tab.lower()}-phone")
        assert wide <= width, f"{wide} px of content in {width} px"
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
