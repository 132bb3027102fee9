"""The tab Compare, through the app that is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio", reason="the extra `app` is not installed")

from gradio_client import Client  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from datasets_script.app.main import AppSettings, launch  # noqa: E402


def test_people_vote_blindly(tmp_path: Path) -> None:
    for folder, level in (("base", 10), ("best", 200)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.new("RGB", (40, 30), (level, number, 0)).save(tmp_path / folder / f"{number}.png")
    folders = (tmp_path / "base", tmp_path / "best")
    settings = AppSettings(tmp_path / "kept", compare=folders, votes=tmp_path / "votes.jsonl", model="", detector="")
    app, url = launch(settings, block=False)
    try:
        client = Client(url, verbose=False)
        with pytest.raises(AppError, match="Type your name first"):
            client.predict(" ", api_name="/begin_votes")
        with pytest.raises(AppError, match="Press Start first"):
            client.predict("ann", api_name="/vote_left")
        status, *pictures = client.predict("ann", api_name="/begin_votes")
        for _ in range(3):
            assert "base" not in status and "best" not in status
            levels = []
            for path in pictures:
                with Image.open(path) as image:
                    levels.append(int(np.asarray(image.convert("RGB"))[0, 0, 0]))
            assert sorted(levels) == [10, 200]
            side = "left" if levels[0] == 200 else "right"
            status, *pictures = client.predict("ann", api_name=f"/vote_{side}")
        assert "You have voted on everything" in status and pictures == [None, None]
        assert "**best** is preferred to base in 100% of 3 votes of 1 person" in client.predict(api_name="/results")
    finally:
        app.close()
