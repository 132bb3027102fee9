"""Import of gradio, which an extra installs."""

from __future__ import annotations

import os
from typing import Any


def import_gradio() -> Any:
    """
    Import gradio with its reports on users switched off, which it reads from the environment.

    Raises:
        ImportError: The extra `app` is missing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            f"the app needs the package gradio ({error}); run `pip install artiagent[app]`", name="gradio"
        ) from error
    return gradio


def import_annotator() -> Any:
    """
    Import the component that draws boxes.

    Raises:
        ImportError: The extra `app` is missing.
    """
    import_gradio()
    try:
        from gradio_image_annotation import image_annotator
    except ImportError as error:
        raise ImportError(
            f"the tab Annotate needs the package gradio_image_annotation ({error}); run `pip install artiagent[app]`",
            name="gradio_image_annotation",
        ) from error
    return image_annotator
