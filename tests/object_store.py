"""An S3 of the tests: moto's server in a process of its own, behind a proxy that can answer badly."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVE = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
SECRET = "wJalrXUtnFEMIsecret"
DROP = object()
"""A fault: the request is carried out, and its answer is lost."""
Fault = Callable[[str, str], object]
"""Called with method and path of each request: None, a status to answer instead, DROP, or seconds to wait (float)."""


class Proxy(ThreadingHTTPServer):
    """Hands requests to a port of this machine, unless `fault` says otherwise."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = port
        self.fault: Fault = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIAsecret", "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path)
        if isinstance(fault, float):
            threading.Event().wait(fault)
        elif isinstance(fault, int):
            text = f"<Error><Code>Fault</Code><Message>{self.headers.get('authorization')}</Message></Error>".encode()
            self.send_response(fault)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else text)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target)
        upstream.request(self.command, self.path, body, dict(self.headers))
        given = upstream.getresponse()
        content = given.read()
        upstream.close()
        if fault is DROP:
            self.close_connection = True
            return
        self.send_response(given.status)
        for name, value in given.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = given.getheader("content-length") if self.command == "HEAD" else len(content)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served() -> Iterator[Proxy]:
    """Run moto's server and the proxy; make the bucket `bucket`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin and process.stdout
    with process:
        proxy = Proxy(int(process.stdout.readline()))
        try:
            connection = http.client.HTTPConnection("127.0.0.1", proxy.server_port)
            connection.request("PUT", "/bucket")
            assert connection.getresponse().status == 200
            connection.close()
            yield proxy
        finally:
            proxy.shutdown()
            proxy.server_close()
            process.kill()


def once_each(fault: object, matches: Callable[[str, str], bool]) -> Fault:
    """Return a fault for the first request of every path that matches; later ones are answered."""
    seen: set[str] = set()

    def decide(method: str, path: str) -> object:
        if not matches(method, path) or path in seen:
            return None
        seen.add(path)
        return fault

    return decide
