"""The order of a training: shares by weight, passes without repetition, what the seed fixes; and what it continues."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.pixel.data import Mixture
from training.pixel.hard_cases import HardCases, category_means
from training.pixel.mixture import draw_order, interleave, plan
from training.pixel.sources import registry
from training.pixel.sources.registry import parse_sources, read_source


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.integers(1, 120))
def test_no_source_is_ahead_of_its_share(weights, length):
    sources = interleave(weights, length)
    shares = np.array(weights) / sum(weights)
    ahead = np.cumsum(np.eye(len(weights))[sources], axis=0) - np.outer(np.arange(1, length + 1), shares)
    assert ahead.max() < 1
    assert np.array_equal(interleave(weights, length + 5)[:length], sources)


def test_each_pass_has_each_unit_once_and_longer_trainings_begin_alike():
    order = draw_order(7, 20, seed=3)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert not np.array_equal(order[:7], order[7:14])
    assert np.array_equal(draw_order(7, 9, seed=3), order[:9])
    assert not np.array_equal(draw_order(7, 7, seed=4), order[:7])


def test_a_plan_draws_each_source_by_its_weight():
    drawn = plan([5, 3], [3.0, 1.0], 40, seed=0)
    assert np.bincount(drawn[:, 0]).tolist() == [30, 10]
    assert np.bincount(drawn[drawn[:, 0] == 0, 1]).tolist() == [6] * 5
    assert np.array_equal(drawn, plan([5, 3], [3.0, 1.0], 40, seed=0))


def test_a_fingerprint_tells_changed_files_and_other_hard_cases(tmp_path):
    def fingerprint(folder, hard_cases=None):
        sources = [read_source(spec, 0) for spec in parse_sources([f"photos={folder}"])]
        return Mixture(sources, hard_cases=hard_cases).fingerprint

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (96, 64), "gray").save(photos / "wall.png")
    before = fingerprint(photos)
    assert fingerprint(shutil.copytree(photos, tmp_path / "moved")) == before
    hard = [fingerprint(photos, HardCases({"cat": mean})) for mean in (0.5, 0.6)]
    assert len({before, *hard}) == 3
    Image.new("RGB", (96, 64), "red").save(photos / "wall.png")
    assert fingerprint(photos) != before


def test_files_are_read_once_for_fingerprint_and_record(tmp_path, monkeypatch):
    Image.new("RGB", (96, 64), "gray").save(tmp_path / "wall.png")
    (source,) = (read_source(spec, 0) for spec in parse_sources([f"photos={tmp_path}"]))
    read: list[str] = []

    def hash_files(paths):
        read.extend(paths)
        return "0" * 64

    monkeypatch.setattr(registry, "hash_files", hash_files)
    mixture = Mixture([source])
    assert mixture.record(mixture.train(1))["sources"][0]["fingerprint"] and mixture.fingerprint
    assert read == [str(tmp_path / "wall.png")]


def test_hard_categories_are_drawn_more_often():
    lines = [("street", 0.9), ("street", 0.8), ("cat", 0.2), ("tree", 0.25), ("sky", 0.15)]
    means = category_means(lines)
    assert means == {"cat": 0.2, "sky": 0.15, "street": pytest.approx(0.85), "tree": 0.25}
    cases = HardCases(means, factor=3.0)
    assert cases.hard == ("street",)
    categories = ["street", "cat", "tree", "sky"] * 5
    frequencies = cases.frequencies(categories)
    assert frequencies.mean() == pytest.approx(1) and frequencies[0] == pytest.approx(3 * frequencies[1])
    order = draw_order(20, 4000, seed=0, frequencies=frequencies)
    shares = np.bincount(order, minlength=20).reshape(5, 4).sum(axis=0) / 4000
    assert shares == pytest.approx([0.5, 1 / 6, 1 / 6, 1 / 6], abs=0.03)


def test_without_statistics_nothing_is_hard():
    assert HardCases({}).hard == () and HardCases({"cat": 0.5}).hard == ()
    assert HardCases({}).frequencies(["cat", "dog"]).tolist() == [1, 1]
