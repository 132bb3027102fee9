"""
The tab Browse in a real browser, by keyboard alone: look, accept, reject, relabel, edit box and mask, undo, filter;
the place survives a new page, the page fits a phone, and no request leaves the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


from . import test_app as browser  # skips this file too where there is no browser  # isort: skip

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from datasets_script.app.browsing import Library, Sample
from datasets_script.app.main import AppSettings, launch
from datasets_script.edits.layer import EditLayer
from datasets_script.edits.shapes import filled, grown
from datasets_script.schema.image import BenchmarkImage, Region
from datasets_script.schema.pair import Pair
from diffusers_artifact.tools import bbox_of_mask

from ..helpers.benchmark_sources import encode
from ..helpers.made_benchmarks import write_benchmark
from ..helpers.made_edits import mask_of
from ..helpers.made_pairs import HEIGHT, WIDTH, make_pair, write_run
from .test_app import PHONE, hosts, open_tab, screenshot, text_with, wait_for


driver, last_view, photo = browser.driver, browser.last_view, browser.photo


@dataclass(frozen=True)
class Served:
    url: str
    folder: Path

    def sample(self, split: str, name: str) -> Sample:
        library = Library(self.folder)
        library.refresh()
        return library.sample((split, name))


def a_pair(number: int, photo: Image.Image) -> Pair:
    """Make a pair that shows the photo, with what the artifacts cover turned upside down."""
    shown = photo.resize((WIDTH, HEIGHT))
    pair, flawed = make_pair(number), np.asarray(shown).copy()
    for artifact in pair.artifacts:
        flawed[artifact.mask] = np.asarray(shown)[::-1][artifact.mask]
    return replace(pair, source=shown, clean=shown, flawed=Image.fromarray(flawed))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Iterator[Served]:
    run = write_run(tmp_path_factory.mktemp("browse") / "run", [a_pair(number, photo) for number in range(4)])
    app, url = launch(AppSettings(run, model="", detector=""), block=False)
    yield Served(url, run)
    app.close()


def press(driver: Any, *keys: str) -> None:
    for key in keys:
        driver.find_element(By.TAG_NAME, "body").send_keys(key)


def where(driver: Any, text: str) -> None:
    text_with(driver, "#browse-where", text)


def said(driver: Any, text: str) -> None:
    text_with(driver, "#browse-message", text)


def save(driver: Any, text: str) -> None:
    """Press Enter until what was painted is saved: on a busy machine an editor takes its layer late."""

    def saved() -> bool:
        press(driver, Keys.ENTER)
        time.sleep(3)
        return text in driver.find_element(By.CSS_SELECTOR, "#browse-message").text

    wait_for(saved, f"'{text}'")


def test_a_run_is_gone_through_by_keyboard(driver: Any, served: Served) -> None:
    open_tab(driver, served.url, "Browse")
    where(driver, "1 of 4")
    name = driver.find_element(By.CSS_SELECTOR, "#browse-name input, #browse-name textarea")
    name.send_keys(Keys.CONTROL, "a")
    name.send_keys("ann", Keys.ESCAPE)
    press(driver, Keys.ARROW_RIGHT)
    where(driver, "2 of 4")
    screenshot(driver, "browse-desktop")
    press(driver, "c")
    text_with(driver, "#browse-side", "clean image")
    press(driver, "c", "a")
    said(driver, "photo1.png:0 accepted")
    where(driver, "3 of 4")

    before = served.sample("", "photo2.png:0").regions
    press(driver, "2", "t")
    kinds = text_with(driver, "#browse-mode", "corruption")
    assert "5 corruption" in " ".join(kinds.split())
    press(driver, "5")
    said(driver, "photo2.png:0 has a region of another type")
    assert served.sample("", "photo2.png:0").regions[1].type == "corruption"
    press(driver, "b")
    text_with(driver, "#browse-mode", "Box")
    press(driver, Keys.SHIFT + Keys.ARROW_LEFT + Keys.NULL, Keys.ENTER)
    said(driver, "photo2.png:0 has another box")
    box, old = served.sample("", "photo2.png:0").regions[1].box, before[1].box
    assert box and old and box[2] < old[2] and box[0] == old[0]

    press(driver, "m")
    wait_for(lambda: driver.find_element(By.CSS_SELECTOR, "#browse-editor canvas").size["width"] > 100, "the editor")
    time.sleep(3)  # the editor takes its layer
    press(driver, Keys.ENTER)
    said(driver, "nothing was changed")  # the mask has made the round trip exactly
    screenshot(driver, "browse-mask")
    begun = mask_of(served.sample("", "photo2.png:0").regions[1])
    press(driver, "-")
    save(driver, "photo2.png:0 has another mask")
    assert np.array_equal(mask_of(served.sample("", "photo2.png:0").regions[1]), grown(begun, -1))

    press(driver, "u")
    said(driver, "Undone: the last edit of photo2.png:0")
    press(driver, "r")
    said(driver, "photo2.png:0 rejected")
    where(driver, "4 of 4 · 1 accepted, 1 rejected, 1 changed")
    press(driver, "+", "+")
    screenshot(driver, "browse-zoom")
    standing = EditLayer(served.folder).of(("", "photo2.png:0")).standing
    assert [(edit.action, edit.who) for edit in standing] == [("relabel", "ann"), ("box", "ann"), ("reject", "ann")]

    press(driver, "f")
    find = wait_for(lambda: driver.switch_to.active_element, "the filter")
    wait_for(lambda: driver.switch_to.active_element.tag_name in ("input", "textarea"), "the filter's field")
    find = driver.switch_to.active_element
    find.send_keys("photo3", Keys.ESCAPE)
    where(driver, "1 of 1 chosen, 4 in all")
    driver.refresh()
    where(driver, "1 of 1 chosen, 4 in all")
    name = driver.find_element(By.CSS_SELECTOR, "#browse-name input, #browse-name textarea")
    assert name.get_attribute("value") == "ann" and hosts(driver) == {"127.0.0.1"}


def test_a_benchmark_gets_a_region_and_the_page_fits_a_phone(driver: Any, photo: Image.Image, tmp_path: Path) -> None:
    mask = filled((100, 40, 180, 120), (320, 240))
    shown = encode(np.asarray(photo.resize((320, 240))))
    hand = Region("mask", bbox_of_mask(mask), mask=mask, name="hand", caption="The hand has six fingers.")
    images = [
        BenchmarkImage("one.png", shown, (320, 240), True, (hand,), "an astronaut", "A hand has six fingers."),
        BenchmarkImage("two.png", shown, (320, 240), False),
    ]
    served = Served("", write_benchmark(tmp_path / "benchmark", images))
    app, url = launch(AppSettings(served.folder, model="", detector=""), block=False)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PHONE[0], "height": PHONE[1], "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        open_tab(driver, url, "Browse")
        where(driver, "1 of 2")
        wide, width = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        screenshot(driver, "browse-phone")
        assert wide <= width, f"{wide} px of content in {width} px"
        press(driver, Keys.ARROW_RIGHT)
        where(driver, "2 of 2")
        press(driver, "n", Keys.ARROW_RIGHT, Keys.ENTER)
        said(driver, "two.png has a new region")
        sample = served.sample("test", "two.png")
        assert sample.regions[0].type == "hand" and sample.edited["has_artifact"] is True
        press(driver, Keys.DELETE)
        said(driver, "two.png lost a region")
        assert served.sample("test", "two.png").edited["has_artifact"] is False
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        app.close()
