"""Tests of the versions recorded with scores and pairs."""

from __future__ import annotations

from importlib.metadata import version

from evaluate_metrics.functional.versions import RECORDED_PACKAGES, recorded_versions, versions


def test_a_score_names_what_is_installed_and_nothing_else():
    assert (
        versions("pillow", "no-such-package").items()
        >= {"numpy": version("numpy"), "pillow": version("pillow")}.items()
    )
    assert "no-such-package" not in versions("no-such-package")


def test_a_record_has_an_entry_for_every_package():
    recorded = recorded_versions(["numpy", "no-such-package"])
    assert recorded == {"numpy": version("numpy"), "no-such-package": "not installed"}
    assert tuple(recorded_versions()) == RECORDED_PACKAGES
