"""A server on 127.0.0.1 in the place of the release address: it serves, refuses, lies, breaks off and falls silent."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from course_utils import data
from course_utils.data import download


class ReleaseServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.behaviour = "serve"
        self.requests = 0
        self.half_sent = threading.Event()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/dsb2018.zip"

    def offer(self, content: bytes, monkeypatch) -> None:
        """Serve this content, and let the course expect its checksum."""
        self.content = content
        monkeypatch.setattr(download, "DSB2018_SHA256", hashlib.sha256(content).hexdigest())


class Handler(BaseHTTPRequestHandler):
    server: ReleaseServer

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        server = self.server
        server.requests += 1
        if server.behaviour == "404":
            self.send_error(404)
            return
        if server.behaviour == "silent":
            server.released.wait(60)
            return
        body = b"<html>Please log in</html>" if server.behaviour == "login page" else server.content
        self.send_response(200)
        if server.behaviour != "no length, half":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.behaviour == "slow":
            server.released.wait(60)
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        server.half_sent.set()
        if server.behaviour in ("half", "no length, half"):
            return
        if server.behaviour == "stall":
            server.released.wait(60)
            return
        self.wfile.write(body[half:])


@contextlib.contextmanager
def release_of(folder: Path, cache: Path, monkeypatch) -> Iterator[ReleaseServer]:
    """A running server that offers this folder as dsb2018.zip, as the only address that the course knows."""
    server = ReleaseServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    archive = shutil.make_archive(str(folder.parent), "zip", folder.parent)
    server.offer(Path(archive).read_bytes(), monkeypatch)
    for name, value in (("DSB2018_URL", server.url), ("CONNECT_SECONDS", 1), ("READ_SECONDS", 1)):
        monkeypatch.setattr(download, name, value)
    monkeypatch.setattr(data, "DSB2018_FINGERPRINT", data.fingerprint(data.load_data(folder)))
    monkeypatch.setattr(download, "MIN_FREE_BYTES", 1_000_000)
    monkeypatch.setenv("COURSE_DATA_DIR", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()
