"""Runs that store the noise that both images of each pair invert to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from datasets_script.engine.shards import RunMismatchError
from datasets_script.pairs.storage import read_pairs
from datasets_script.schema.features import NOISE_COLUMNS, PAIR_FEATURES, row_to_pair

from ...helpers.engine_runs import SETTINGS, SOURCES, SmallInjector, make_run, rows


STORING = replace(SETTINGS, store_noise=True)
ONE = SOURCES[:1]


@pytest.fixture(scope="module")
def storing(photos, injector, tmp_path_factory) -> Path:
    """A run of one photo with two artifact images."""
    out = tmp_path_factory.mktemp("storing")
    spent = injector.num_function_evaluations
    record = make_run(photos, out, injector, STORING, ONE).execute(show_progress=False)
    assert record.counters["num_function_evaluations"] == injector.num_function_evaluations - spent
    assert record.counters["num_function_evaluations"] == SmallInjector.evaluations(STORING)
    return out


def test_each_image_has_the_noise_that_it_inverts_to_itself(storing, injector):
    pairs = list(read_pairs(storing))
    assert len(pairs) == 2
    for pair in pairs:
        assert pair.clean_noise is not None and pair.flawed_noise is not None
        found = injector.invert([pair.clean, pair.flawed], None)
        for noise, again in zip((pair.clean_noise, pair.flawed_noise), found, strict=True):
            assert noise.shape == (16, 32, 32) and noise.dtype == np.float16
            # The batch was another.
            np.testing.assert_allclose(noise.astype(float), again.astype(float), rtol=2e-3, atol=2e-3)
        assert np.abs(pair.clean_noise.astype(float) - pair.flawed_noise).max() > 0.1
    np.testing.assert_array_equal(pairs[0].clean_noise, pairs[1].clean_noise)


def test_the_images_are_those_of_a_run_that_stores_none(photos, injector, storing, tmp_path):
    make_run(photos, tmp_path, injector, SETTINGS, ONE).execute(show_progress=False)
    without = rows(tmp_path)
    assert all(row[name] is None for row in without for name in NOISE_COLUMNS)
    stripped = [row | dict.fromkeys(NOISE_COLUMNS) for row in rows(storing)]
    assert stripped == without


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_it(storing, tmp_path, streaming):
    loaded = load_dataset(str(storing), split="train", streaming=streaming, cache_dir=str(tmp_path))
    assert loaded.features == PAIR_FEATURES
    for row, pair in zip(loaded, read_pairs(storing), strict=True):
        np.testing.assert_array_equal(row_to_pair(row).flawed_noise, pair.flawed_noise)


def test_a_run_from_before_is_continued_without_and_refused_with_noise(photos, injector, tmp_path):
    make_run(photos, tmp_path, injector, SETTINGS, ONE).execute(show_progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["settings"]["store_noise"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    again = make_run(photos, tmp_path, injector, SETTINGS, ONE).execute(show_progress=False)
    assert again.pairs == 2 and again.fingerprint == record["fingerprint"]
    with pytest.raises(RunMismatchError, match="another settings.store_noise"):
        make_run(photos, tmp_path, injector, STORING, ONE)
