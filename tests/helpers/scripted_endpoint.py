"""A server on localhost that answers questions about known photos by script, and perception that locates its names."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets_script.agents.perception import AnnotationPerception, Entity, Part, Perception
from datasets_script.agents.perception.association import Segment
from datasets_script.agents.perception.vocabulary import VocabularyPerception
from datasets_script.utils.photos import open_source
from datasets_script.vlm import VLM

from .vlm_fixtures import ANSWERS


class KnownPhotos:
    """Photos with annotations, found by their pixels."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        annotations = AnnotationPerception(folder / "annotations.json")
        images = {name: open_source(folder / name) for name in sources}
        self._sources = {image.tobytes(): name for name, image in images.items()}
        self.perceptions = {name: annotations.perceive(image, name) for name, image in images.items()}

    def source_of(self, image: Image.Image) -> str:
        """Return the name of a photo; empty for another image, such as a crop."""
        return self._sources.get(image.convert("RGB").tobytes(), "")


class AnnotatedVocabulary(VocabularyPerception):
    """What a VLM names is where the annotations have it."""

    def __init__(self, vlm: VLM, photos: KnownPhotos) -> None:
        super().__init__(vlm)
        self.photos = photos

    def ground(
        self, images: Sequence[Image.Image], names: Sequence[Sequence[str]]
    ) -> list[tuple[list[Segment], list[str]]]:
        perceptions = [self.photos.perceptions[self.photos.source_of(image)] for image in images]
        return [(_segments(perception, wanted), []) for perception, wanted in zip(perceptions, names, strict=True)]


def _segments(perception: Perception, names: Sequence[str]) -> list[Segment]:
    things: list[Entity | Part] = []
    for entity in perception.entities:
        things += [entity, *entity.parts]
    return [Segment(thing.name, np.asarray(thing.mask), 1.0) for thing in things if thing.name in names]


class ScriptedEndpoint:
    """
    Attributes:
        base_url (`str`): URL for clients.
        seconds (`float`): Time that each answer takes.
        asked (`list[tuple[str, str]]`): Task and photo of each request, in the order of arrival.
        answered (`list[tuple[str, str]]`): The same of those whose answer was taken.
        most_at_once (`int`): Most requests in work at once.
        refused, unnamed (`set[str]`): Photos that the server has no key for, and those that it gives prose about.
        held (`dict[str, threading.Event]`): Photos that are answered once their event is set.
    """

    def __init__(self, photos: KnownPhotos, seconds: float = 0.0) -> None:
        self.photos, self.seconds = photos, seconds
        self.asked: list[tuple[str, str]] = []
        self.answered: list[tuple[str, str]] = []
        self.most_at_once = 0
        self.refused: set[str] = set()
        self.unnamed: set[str] = set()
        self.held: dict[str, threading.Event] = {}
        self._at_once = 0
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"endpoint": self}))
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def await_question(self, source: str, seconds: float = 60.0) -> bool:
        """Wait for a question about a photo; return whether one came."""
        with self._changed:
            return self._changed.wait_for(lambda: source in {photo for _, photo in self.asked}, seconds)

    def take(self, question: tuple[str, str]) -> None:
        with self._changed:
            self.asked.append(question)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
        if question[1] in self.held:
            self.held[question[1]].wait(60)
        time.sleep(self.seconds)
        with self._changed:
            self._at_once -= 1

    def text(self, task: str, source: str) -> str:
        if source in self.unnamed:
            return "I would rather not."
        if not source or task not in ("vocabulary", "caption"):
            return ANSWERS[task]
        perception = self.photos.perceptions[source]
        if task == "caption":
            return json.dumps({"caption": f"a picture of {source}"})
        entities = [
            {"entity": entity.name, "subentities": list(dict.fromkeys(part.name for part in entity.parts))}
            for entity in perception.entities
            if entity.parts
        ]
        return json.dumps({"peripheral": entities, "intermediate": []})


@contextmanager
def scripted_endpoint(photos: KnownPhotos, seconds: float = 0.0) -> Iterator[ScriptedEndpoint]:
    """Run a server that knows the photos."""
    endpoint = ScriptedEndpoint(photos, seconds)
    thread = threading.Thread(target=endpoint._server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        for event in endpoint.held.values():
            event.set()
        endpoint._server.shutdown()
        endpoint._server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    endpoint: ScriptedEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        task = body["response_format"]["json_schema"]["name"]
        source = self.endpoint.photos.source_of(_image(content[0]["image_url"]["url"]))
        self.endpoint.take((task, source))
        status = 401 if source in self.endpoint.refused else 200
        message = {"choices": [{"message": {"content": self.endpoint.text(task, source)}}]}
        answer = json.dumps(message | {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()
        with suppress(ConnectionError):  # a client may have gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.endpoint.answered.append((task, source))

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _image(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
