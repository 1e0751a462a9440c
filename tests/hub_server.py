"""A server on this machine that speaks enough of the hub's protocol for `huggingface_hub` itself.

What it serves: model_info and dataset_info with file sizes and hashes, resolve with ETag, X-Repo-Commit and, for large files,
a redirect to another address with X-Linked-Etag and X-Linked-Size; byte ranges; tree and paths-info for `datasets`. It refuses as the
hub does: 401 and 403 with X-Error-Code, 404 for revisions and files. And it can misbehave: cut a transfer, alter a byte, stall.
"""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1024  # bytes from which a file is a large one (LFS), as weights are


@dataclass
class Repository:
    """A repository: its commits in order, the last one being `main`, each with its files; and who may read it."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """The commit of a revision."""
        if revision == "main":
            return list(self.commits)[-1]
        revision = self.tags.get(revision, revision)
        return revision if revision in self.commits else None


class Hub:
    """The server. `requests` logs (method, path, range header); the fault attributes apply to the content of large files."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: list[int] = []  # after how many bytes each of the next transfers breaks off
        self.altered = 0  # how many of the next transfers have one wrong byte
        self.bytes_per_second: float | None = None
        self.sent = 0  # bytes of large files
        self.token = "hf_right"
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.storage = f"http://localhost:{self.server.server_address[1]}"  # another host to the client, as the hub's storage is
        self.leaked = False  # whether a token reached the storage
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], *, kind: str = "model", gated: bool = False, tags: tuple[str, ...] = ()) -> str:
        """Give a repository another commit; returns it. Tags name that commit."""
        commit = hashlib.sha1(json.dumps([name, len(self.repositories), sorted(files), str(time.monotonic_ns())]).encode()).hexdigest()
        repository = self.repositories.setdefault((kind, name), Repository({}, gated))
        repository.commits[commit] = dict(files)
        repository.tags |= dict.fromkeys(tags, commit)
        return commit

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()


def git_blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.form = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.body = body
        self.server_hub.requests.append((self.command, url.path, self.headers.get("Range")))
        if parts[0] == "cdn":
            self.server_hub.leaked |= "Authorization" in self.headers
            self._content(self._file(parts[1], f"{parts[2]}/{parts[3]}", parts[4], "/".join(parts[5:])), large=True)
        elif parts[0] == "api":
            self._api(parts, parse_qs(url.query))
        else:
            self._resolve(parts)

    def _repository(self, kind: str, name: str) -> Repository | None:
        found = self.server_hub.repositories.get((kind, name))
        allowed = self.headers.get("Authorization") == f"Bearer {self.server_hub.token}"
        if "Authorization" in self.headers and not allowed and found and found.gated:
            self._refuse(403, "GatedRepo", f"Access to {kind} {name} is restricted.")
        elif found and found.gated and not allowed:
            self._refuse(401, "GatedRepo", f"Access to {kind} {name} is restricted.")
        elif not found:
            self._refuse(404 if allowed else 401, "RepoNotFound", "Repository not found")
        else:
            return found
        return None

    def _api(self, parts: list[str], query: dict[str, list[str]]) -> None:
        if len(parts) < 4 or parts[1] not in ("models", "datasets"):
            self._json({"type": "user", "name": "someone"} if parts[1] == "whoami-v2" else {})
            return
        kind, name = parts[1].removesuffix("s"), f"{parts[2]}/{parts[3]}"
        repository = self._repository(kind, name)
        if repository is None:
            return
        what = parts[4] if len(parts) > 4 else "revision"
        commit = repository.resolve(parts[5] if len(parts) > 5 else "main")
        if commit is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        files = repository.commits[commit]
        if what == "revision":
            blobs = "blobs" in query
            siblings = [_sibling(n, content) if blobs else {"rfilename": n} for n, content in sorted(files.items())]
            self._json({"id": name, "_id": "0", "sha": commit, "private": False, "gated": False, "tags": [], "siblings": siblings})
        elif what == "tree":
            under = "/".join(parts[6:])
            entries = [_entry(n, content) for n, content in sorted(files.items()) if n.startswith(f"{under}/" if under else "")]
            folders = {n.rpartition("/")[0] for n in files if n.startswith(f"{under}/" if under else "") and "/" in n}
            entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in sorted(folders - {under})]
            self._json(entries)
        elif what == "paths-info":
            asked = parse_qs(self.form.decode()).get("paths", []) if b"=" in self.form else json.loads(self.form or b"{}").get("paths", [])
            self._json([_entry(n, files[n]) for n in asked if n in files])
        else:
            self._refuse(404, "EntryNotFound", "not found")

    def _resolve(self, parts: list[str]) -> None:
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if kind == "dataset" else parts
        name, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        repository = self._repository(kind, name)
        if repository is None:
            return
        commit = repository.resolve(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        if len(content) < LARGE:
            self._content(content, large=False, headers={"X-Repo-Commit": commit, "ETag": f'"{git_blob(content)}"'})
            return
        self.send_response(302)
        self.send_header("Location", f"{self.server_hub.storage}/cdn/{kind}/{name}/{commit}/{path}")
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, kind: str, name: str, commit: str, path: str) -> bytes:
        return self.server_hub.repositories[kind, name].commits[commit][path]

    def _content(self, content: bytes, *, large: bool, headers: dict[str, str] | None = None) -> None:
        hub = self.server_hub
        start = 0
        if (wanted := self.headers.get("Range")) is not None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        piece = content[start:]
        self.send_response(206 if start else 200)
        for key, value in (headers or {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}).items():
            self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(piece)))
        self.end_headers()
        if not self.body:
            return
        if large and hub.altered:
            hub.altered -= 1
            piece = bytes([piece[0] ^ 255]) + piece[1:]
        if large and hub.cut and len(piece) > hub.cut[0]:
            piece = piece[: hub.cut.pop(0)]
            self.close_connection = True
        step = 16384
        for place in range(0, len(piece), step):
            try:
                self.wfile.write(piece[place : place + step])
            except OSError:  # the client was killed
                self.close_connection = True
                return
            if large:
                hub.sent += len(piece[place : place + step])
                if hub.bytes_per_second:
                    time.sleep(step / hub.bytes_per_second)

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.body:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}.items():
            self.send_header(key, value)
        content = json.dumps({"error": message}).encode()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.body:
            self.wfile.write(content)


def _lfs(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    if len(content) < LARGE:
        return {"rfilename": name, "size": len(content), "blobId": git_blob(content)}
    return {"rfilename": name, "size": len(content), "blobId": git_blob(b"pointer"), "lfs": _lfs(content)}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
