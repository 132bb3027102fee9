"""
A Hub on localhost: enough of the Hub's HTTP interface for the real clients to create, push, download and load models,
datasets and Spaces. Everything is kept in memory.

    with LocalHub() as hub:
        subprocess.run([sys.executable, "push.py"], env={**os.environ, **hub.environment(tmp_path)})

`huggingface_hub` reads its endpoint when imported, hence the subprocess. To run it until Ctrl-C:

    python -m tests.helpers.local_hub --port 8123
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


USER = "tester"
TOKEN = "token-of-the-local-hub"
READ_TOKEN = "token-that-may-only-read"
ROLES = {TOKEN: "write", READ_TOKEN: "read"}

# As in the Hub's default .gitattributes. A client deletes its copy of such a file once it is "uploaded as LFS", so
# answering "regular" for them loses data.
LFS_SUFFIXES = (".parquet", ".safetensors", ".bin", ".tar", ".arrow", ".pt", ".msgpack", ".onnx")

REPO_ID = r"(?P<repo_id>[^/]+/[^/]+?)"
KIND = r"(?P<kind>model|dataset|space)s"
API = f"/api/{KIND}/{REPO_ID}"


@dataclass(frozen=True)
class Commit:
    """State of a repository: its hash, and the content of each file by path."""

    sha: str
    files: dict[str, bytes]


@dataclass
class Fault:
    """
    Fault of one request.

    Args:
        pattern (`str`): Substring of the request's method and path, e.g. `"PUT /blobs/"`.
        status (`int`, *optional*): Status of the response; `None` drops the connection without one.
        passes (`int`): Number of such requests that succeed before.
    """

    pattern: str
    status: int | None = 500
    passes: int = 0


class HubError(Exception):
    """Error response in the form that `huggingface_hub` turns into its own exceptions."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}


class LocalHub:
    """
    Hub that serves while its `with` block lasts.

    Attributes:
        url (`str`): Endpoint to give to clients.
        requests (`list[str]`): Method and path of every request so far.
        repositories (`dict[tuple[str, str], list[Commit]]`):
            History by kind (`"model"`, `"dataset"` or `"space"`) and id.
        private (`set[tuple[str, str]]`): Repositories created private.
        gated (`set[tuple[str, str]]`): Repositories whose licence nobody has accepted.
        faults (`list[Fault]`): Pending faults.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[str] = []
        self.repositories: dict[tuple[str, str], list[Commit]] = {}
        self.private: set[tuple[str, str]] = set()
        self.gated: set[tuple[str, str]] = set()
        self.faults: list[Fault] = []
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str = TOKEN) -> dict[str, str]:
        """Return environment variables that point a client process at this hub, with its caches in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": token,
        }

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Return the content of each file of a repository at `revision`."""
        return self.find_commit(kind, repo_id, revision).files

    def create_repository(self, kind: str, repo_id: str) -> None:
        self.repositories[kind, repo_id] = [Commit(_sha1(f"{kind}s/{repo_id}".encode()), {})]

    def commit(self, kind: str, repo_id: str, added: dict[str, bytes], deleted: Collection[str]) -> Commit:
        parent = self.repositories[kind, repo_id][-1]
        kept = {
            path: content
            for path, content in parent.files.items()
            if not any(path == gone or path.startswith(gone.rstrip("/") + "/") for gone in deleted)
        }
        files = {**kept, **added}
        digest = parent.sha + "".join(f"{path}{_sha1(files[path])}" for path in sorted(files))
        self.repositories[kind, repo_id].append(Commit(_sha1(digest.encode()), files))
        return self.repositories[kind, repo_id][-1]

    def take_fault(self, request: str) -> Fault | None:
        """Return and remove the fault that is due at this request, if any."""
        for fault in self.faults:
            if fault.pattern in request:
                if not fault.passes:
                    self.faults.remove(fault)
                    return fault
                fault.passes -= 1
        return None

    def find_commit(self, kind: str, repo_id: str, revision: str) -> Commit:
        if (kind, repo_id) not in self.repositories:
            raise HubError(404, "RepoNotFound", f"Repository {kind}s/{repo_id} not found")
        history = self.repositories[kind, repo_id]
        if revision in ("main", "HEAD"):
            return history[-1]
        for commit in history:
            if commit.sha == revision:
                return commit
        raise HubError(404, "RevisionNotFound", f"Revision {revision} not found")


@dataclass(frozen=True)
class _Route:
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    name: str


_ROUTES: list[_Route] = []


def _route(methods: str, pattern: str) -> Callable[[Any], Any]:
    """Register a method of `_Handler` for requests whose whole path matches `pattern`; groups become arguments."""

    def register(function: Any) -> Any:
        _ROUTES.append(_Route(tuple(methods.split()), re.compile(pattern), function.__name__))
        return function

    return register


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave together: apart, the client's delayed acknowledgement costs 40 ms a request.
    wbufsize = -1
    hub: LocalHub

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, to keep the output of tests readable."""

    def _dispatch(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        self.query = urllib.parse.parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.hub.lock:
            request = f"{self.command} {path}"
            self.hub.requests.append(request)
            fault = self.hub.take_fault(request)
            if fault and fault.status is None:
                self.close_connection = True
                return
            try:
                if fault and fault.status:
                    raise HubError(fault.status, "Fault", "This hub was told to fail")
                self._answer(path)
            except HubError as error:
                self._send(error.status, {"error": str(error)}, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _dispatch

    def _answer(self, path: str) -> None:
        for route in _ROUTES:
            if self.command in route.methods and (match := route.pattern.fullmatch(path)):
                return getattr(self, route.name)(**match.groupdict())
        raise HubError(404, "EntryNotFound", f"This hub has no route {self.command} {path}")

    def _role(self) -> str | None:
        """Return the rights of the request's token: `"write"`, `"read"`, or `None` without a token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in ROLES:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return ROLES.get(token)

    def _check_may_write(self, repo_id: str) -> None:
        role = self._role()
        if role is None:
            raise HubError(401, "", "Invalid username or password.")
        if role != "write" or repo_id.partition("/")[0] != USER:
            raise HubError(403, "", f"You don't have the rights to write to {repo_id}")

    def _send(
        self, status: int, body: Any, headers: dict[str, str] | None = None, content_type: str = "application/json"
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Content-Length": str(len(content)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Accounts and repositories

    @_route("GET", "/api/whoami-v2")
    def who_am_i(self) -> None:
        role = self._role()
        if role is None:
            raise HubError(401, "", "Invalid username or password.")
        token = {"displayName": "token", "role": role}
        self._send(
            200,
            {
                "type": "user",
                "id": "1",
                "name": USER,
                "fullname": USER,
                "email": "tester@localhost",
                "emailVerified": True,
                "canPay": False,
                "isPro": False,
                "periodEnd": 0,
                "avatarUrl": "",
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": token},
            },
        )

    @_route("POST", "/api/validate-yaml")
    def validate_card(self) -> None:
        self._send(200, {"errors": [], "warnings": []})

    @_route("POST", "/api/repos/create")
    def create_repository(self) -> None:
        kind, repo_id = self._named_repository()
        self._check_may_write(repo_id)
        answer = {"url": f"{self.hub.url}/{_url_path(kind, repo_id)}", "name": repo_id, "id": repo_id}
        if (kind, repo_id) in self.hub.repositories:
            return self._send(409, {**answer, "error": "You already created this repo"})
        self.hub.create_repository(kind, repo_id)
        if json.loads(self.body).get("visibility") == "private":
            self.hub.private.add((kind, repo_id))
        self._send(200, answer)

    @_route("DELETE", "/api/repos/delete")
    def delete_repository(self) -> None:
        self._check_may_write(self._named_repository()[1])
        self.hub.repositories.pop(self._named_repository(), None)
        self._send(200, {})

    def _named_repository(self) -> tuple[str, str]:
        request = json.loads(self.body)
        return request.get("type") or "model", f"{request.get('organization') or USER}/{request['name']}"

    @_route("PUT", f"{API}/settings")
    def change_settings(self, kind: str, repo_id: str) -> None:
        self._send(200, {})

    @_route("GET", f"{API}/refs")
    def list_refs(self, kind: str, repo_id: str) -> None:
        commit = self.hub.find_commit(kind, repo_id, "main")
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit.sha}
        self._send(200, {"branches": [main], "converts": [], "tags": []})

    @_route("GET", f"{API}(?:/revision/(?P<revision>.+))?")
    def repository_info(self, kind: str, repo_id: str, revision: str | None) -> None:
        self._role()
        commit = self.hub.find_commit(kind, repo_id, revision or "main")
        date = "2026-01-01T00:00:00.000Z"
        self._send(
            200,
            {
                "_id": "1",
                "id": repo_id,
                "modelId": repo_id,
                "author": repo_id.partition("/")[0],
                "sha": commit.sha,
                "private": (kind, repo_id) in self.hub.private,
                "gated": "auto" if (kind, repo_id) in self.hub.gated else False,
                "cardData": _front_matter(commit.files.get("README.md", b"")),
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "lastModified": date,
                "createdAt": date,
                "siblings": [
                    {"rfilename": path, "size": len(content)} for path, content in sorted(commit.files.items())
                ],
            },
        )

    @_route("GET", f"{API}/auth-check")
    def check_access(self, kind: str, repo_id: str) -> None:
        if (kind, repo_id) in self.hub.gated:
            raise HubError(403, "GatedRepo", f"Access to {repo_id} is restricted")
        self._send(200, {})

    # Uploads: the client asks how to send each file, sends the large ones as blobs, then commits.

    @_route("POST", f"{API}/preupload/.+")
    def choose_upload_modes(self, kind: str, repo_id: str) -> None:
        self._check_may_write(repo_id)
        there = self.hub.files(kind, repo_id)
        files = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            oid = _content_oid(there[path], mode) if path in there else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": files})

    @_route("POST", rf"/(?:(?:datasets|spaces)/)?{REPO_ID}(?:\.git)?/info/lfs/objects/batch")
    def list_blob_uploads(self, repo_id: str) -> None:
        self._check_may_write(repo_id)
        objects = [{"oid": blob["oid"], "size": blob["size"]} for blob in json.loads(self.body)["objects"]]
        for blob in objects:
            if blob["oid"] not in self.hub.blobs:
                blob["actions"] = {"upload": {"href": f"{self.hub.url}/blobs/{blob['oid']}", "header": {}}}
        self._send(200, {"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    @_route("PUT", "/blobs/(?P<oid>[0-9a-f]+)")
    def receive_blob(self, oid: str) -> None:
        self.hub.blobs[oid] = self.body
        self._send(200, b"")

    @_route("POST", f"{API}/commit/.+")
    def commit(self, kind: str, repo_id: str) -> None:
        self._check_may_write(repo_id)
        added: dict[str, bytes] = {}
        deleted: list[str] = []
        for operation in map(json.loads, filter(None, self.body.splitlines())):
            value = operation["value"]
            match operation["key"]:
                case "header" if "parentCommit" in value:
                    if value["parentCommit"] != self.hub.find_commit(kind, repo_id, "main").sha:
                        raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
                case "file":
                    added[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    added[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile" | "deletedFolder":
                    deleted.append(value["path"])
        commit = self.hub.commit(kind, repo_id, added, deleted)
        url = f"{self.hub.url}/{_url_path(kind, repo_id)}/commit/{commit.sha}"
        self._send(
            200,
            {"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": "", "pullRequestUrl": None},
        )

    # Downloads

    @_route("GET", f"{API}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def list_tree(self, kind: str, repo_id: str, revision: str, folder: str | None) -> None:
        files = self.hub.find_commit(kind, repo_id, revision).files
        prefix = f"{folder}/" if folder else ""
        below = {path: content for path, content in files.items() if path.startswith(prefix)}
        if folder and not below:
            raise HubError(404, "EntryNotFound", f"{folder} not found")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {str(parent) for path in below for parent in Path(path).parents} - {".", folder}
        nodes = [_folder_node(path) for path in folders if path.startswith(prefix)]
        nodes += [_file_node(path, content) for path, content in below.items()]
        nodes = [node for node in nodes if recursive or "/" not in node["path"].removeprefix(prefix)]
        self._send(200, sorted(nodes, key=lambda node: node["path"]))

    @_route("POST", f"{API}/paths-info/(?P<revision>.+)")
    def describe_paths(self, kind: str, repo_id: str, revision: str) -> None:
        files = self.hub.find_commit(kind, repo_id, revision).files
        nodes = []
        for path in self._listed_paths():
            if path in files:
                nodes.append(_file_node(path, files[path]))
            elif any(file.startswith(f"{path}/") for file in files):
                nodes.append(_folder_node(path))
        self._send(200, nodes)

    def _listed_paths(self) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(self.body)["paths"]
        return urllib.parse.parse_qs(self.body.decode()).get("paths", [])

    @_route(
        "GET HEAD",
        rf"/(?:api/resolve-cache/)?(?:{KIND}/)?{REPO_ID}/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)",
    )
    def download(self, kind: str | None, repo_id: str, revision: str, path: str) -> None:
        commit = self.hub.find_commit(kind or "model", repo_id, revision)
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", f"{path} not found", {"X-Repo-Commit": commit.sha})
        content = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{_sha1(content)}"', "Accept-Ranges": "bytes"}
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None or self.command == "HEAD":
            return self._send(200, content, headers, "application/octet-stream")
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers, "application/octet-stream")


def _url_path(kind: str, repo_id: str) -> str:
    return repo_id if kind == "model" else f"{kind}s/{repo_id}"


def _file_node(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": _sha1(content), "size": len(content)}


def _folder_node(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": _sha1(path.encode()), "size": 0}


def _content_oid(content: bytes, mode: str) -> str:
    """Return the id of a content as the Hub gives it to clients: git's hash, or the hash of the blob."""
    if mode == "lfs":
        return hashlib.sha256(content).hexdigest()
    return _sha1(b"blob %d\0" % len(content) + content)


def _front_matter(readme: bytes) -> dict[str, str]:
    """Return the plain entries between the lines of dashes that a card begins with."""
    head = re.match(rb"---\n(.*?)\n---", readme, re.DOTALL)
    lines = head[1].decode().splitlines() if head else []
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hub on localhost, in memory, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    port = parser.parse_args().port
    try:
        local = LocalHub(port)
    except (OSError, OverflowError) as error:
        parser.error(f"--port must be a free port, got {port}: {error}")
    with local as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        print(f"export {' '.join(f'{name}={value}' for name, value in variables.items())}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
