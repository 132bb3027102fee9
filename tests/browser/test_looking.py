"""
The tabs Detect and Compare in a real browser. What was found is accepted by keyboard, edited, decided on and
corrected, with masks that make the round trip exactly at three sizes; votes are blind, and come with intervals.
"""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle


# First, as it skips this file too where there is no browser.
from . import test_app as browser  # isort: skip
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from datasets_script.app.decision import Examined
from datasets_script.app.main import AppSettings, launch
from datasets_script.detection.pixel.detector import PixelDetector

from ..helpers.tiny_detectors import red_detector
from .test_app import SIZES, click, element, fill, hosts, open_tab, screenshot, text_with, wait_for


driver, last_view, photo = browser.driver, browser.last_view, browser.photo
RED = (220, 20, 20)


@dataclass(frozen=True)
class Served:
    url: str
    folder: Path
    detector: PixelDetector


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("app")
    red_detector().save_pretrained(folder / "detector")
    for name, level in (("base", 90), ("best", 230)):
        (folder / name).mkdir()
        for number in range(3):
            shown = photo.crop((60 * number, 0, 60 * number + 384, 384))
            shown.point(lambda value, level=level: value * level // 255).save(folder / name / f"{number}.png")
    settings = AppSettings(
        folder / "kept",
        compare=(folder / "base", folder / "best"),
        votes=folder / "votes.jsonl",
        model="",
        detector=str(folder / "detector"),
        device="cpu",
    )
    app, url = launch(settings, block=False)
    yield Served(url, folder, PixelDetector.from_pretrained(str(folder / "detector"), device="cpu"))
    app.close()


def with_red(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the photo in grey with a red square."""
    grey = photo.resize(size).convert("L").convert("RGB")
    side = min(size) // 5
    grey.paste(Image.new("RGB", (side, side + 3), RED), (size[0] // 2, size[1] // 4))
    return grey


def upload(driver: Any, served: Served, path: Path) -> None:
    open_tab(driver, served.url, "Detect")
    element(driver, "#detect-image input[type=file]").send_keys(str(path))
    text_with(driver, "#detect-status", path.name)
    canvas = element(driver, "#detect-editor canvas")
    wait_for(lambda: canvas.size["width"] > 100, "the editor's canvas")
    browser.time.sleep(2)  # the editor fits the image in and takes its layer


def press_by_keyboard(driver: Any, target: str) -> None:
    """Reach an element by the tabulator and press it."""
    for _ in range(120):
        if driver.switch_to.active_element.get_attribute("id") == target:
            driver.switch_to.active_element.send_keys(Keys.ENTER)
            return
        ActionChains(driver).send_keys(Keys.TAB).perform()
    raise AssertionError(f"the tabulator does not reach #{target}")


def decision(driver: Any, folder: Path) -> dict[str, Any]:
    """Download the decision into a folder, and read it."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    wait_for(lambda: driver.find_element(By.ID, "detect-download").is_enabled(), "the decision")
    click(driver, "#detect-download")
    (file,) = wait_for(lambda: list(folder.glob("*.json")), "the decision's file")
    return json.loads(file.read_text())


def mask_of(decided: dict[str, Any]) -> np.ndarray:
    mask = decided["mask"]
    return rle.decode({"size": mask["size"], "counts": mask["counts"].encode()}).astype(bool)


def picture(source: str) -> np.ndarray:
    with urllib.request.urlopen(source) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_was_found_makes_the_round_trip_by_keyboard(
    driver: Any, served: Served, photo: Image.Image, tmp_path: Path, size: tuple[int, int]
) -> None:
    image = with_red(photo, size)
    image.save(tmp_path / "red.png")
    upload(driver, served, tmp_path / "red.png")
    found = Examined("red.png", image, served.detector(image), "", "")
    assert found.mask.any()
    press_by_keyboard(driver, "detect-decide")
    decided = decision(driver, tmp_path)
    assert np.array_equal(mask_of(decided), found.mask), f"the mask of {size} changed on its way"
    assert decided["edited"] is False and decided["found"]["has_artifact"] is True
    assert hosts(driver) == {"127.0.0.1"}


def test_a_mask_is_edited_decided_on_and_corrected(
    driver: Any, served: Served, photo: Image.Image, tmp_path: Path
) -> None:
    image = with_red(photo, (256, 256))
    image.save(tmp_path / "me.png")
    upload(driver, served, tmp_path / "me.png")
    assert "found artifacts in" in text_with(driver, "#detect-status", "(score")
    overlay = element(driver, "#detect-overlay img")
    wait_for(lambda: driver.execute_script("return arguments[0].naturalWidth", overlay) == 256, "the overlay")
    canvas = element(driver, "#detect-editor canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    strokes = ActionChains(driver, duration=100).move_to_element_with_offset(canvas, -60, 60).click_and_hold()
    strokes.move_to_element_with_offset(canvas, 0, 60).release().perform()
    click(driver, "#detect-decide")
    decided = decision(driver, tmp_path)
    mask, found = mask_of(decided), Examined("me.png", image, served.detector(image), "", "").mask
    assert decided["edited"] is True and (mask & found).sum() == found.sum() and mask.sum() > found.sum()
    text_with(driver, "#detect-details", "detector_revision")
    screenshot(driver, "detect-desktop")

    click(driver, "#detect-correct")
    assert "round" in text_with(driver, "#detect-corrected", "The region was")
    sources = wait_for(
        lambda: [
            one.get_attribute("src")
            for one in driver.find_elements(By.CSS_SELECTOR, "#detect-slider img")
            if one.get_attribute("src")
        ],
        "the slider's images",
    )
    pictures = [picture(source) for source in dict.fromkeys(sources)]
    assert all(one.shape == (256, 256, 3) for one in pictures)
    assert any(np.array_equal(one, np.asarray(image)) for one in pictures)  # what was there before
    driver.execute_script(
        "document.querySelector('#detect-slider').scrollIntoView({block: 'center'})",
    )
    screenshot(driver, "correct-desktop", top=False)
    assert hosts(driver) == {"127.0.0.1"}


def test_votes_are_blind_and_come_with_intervals_by_keyboard(driver: Any, served: Served) -> None:
    open_tab(driver, served.url, "Compare")
    fill(driver, "#compare-name input, #compare-name textarea", "ann")
    element(driver, "#compare-start").send_keys(Keys.ENTER)
    seen: set[str] = set()
    for number in range(3):

        def shown() -> list[str] | None:
            found = [
                driver.find_element(By.CSS_SELECTOR, f"#compare-{side}-image img").get_attribute("src")
                for side in ("left", "right")
            ]
            return None if set(found) & seen else found

        sources = wait_for(shown, f"pair {number}")
        seen.update(sources)
        levels = [picture(source).mean() for source in sources]
        assert not [word for word in ("best", "base/", "base.") if word in "".join(sources)]
        if number == 0:
            wait_for(
                lambda: driver.execute_script(
                    "return [...document.querySelectorAll('#compare-left-image img, #compare-right-image img')]"
                    ".filter(one => one.complete && one.naturalWidth).length == 2"
                ),
                "both pictures",
            )
            screenshot(driver, "compare-desktop")
        driver.find_element(By.TAG_NAME, "body").send_keys("a" if levels[0] > levels[1] else "d")
    text_with(driver, "#compare-status", "You have voted on everything")
    votes = [json.loads(line) for line in (served.folder / "votes.jsonl").read_text().splitlines()]
    assert [(vote["voter"], vote["chosen"]) for vote in votes] == [("ann", "best")] * 3
    driver.execute_script("document.querySelector('#compare-results-box > button').click()")
    click(driver, "#compare-show")
    told = text_with(driver, "#compare-results", "95 % interval")
    assert "best is preferred to base in 100% of 3 votes of 1 person" in told
    screenshot(driver, "compare-results-desktop")
    assert hosts(driver) == {"127.0.0.1"}


def test_the_tab_compare_fits_a_phone(driver: Any, served: Served) -> None:
    browser.test_pages_fit_a_phone(driver, (served.url, served.folder), "Compare", "start")
