"""A real S3 server (moto's) in a process of its own, that can be told to misbehave.

`python -m tests.download.s3_server` prints its port. Beside S3 it answers to:

- `PUT /_rules?bucket=...`: make this bucket, forget all others, and follow these rules for it (a
  JSON list of `[method, pattern of the query, status]`; status 0 means that no answer ever comes);
- `GET /_state`: what is in the bucket, what is unfinished, and which requests came for it;
- `GET /_wait?method=..&query=..`: answers once such a request is done with, or held.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

Start = Callable[..., Any]


class Server:
    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._changed = threading.Condition()
        self._end_of_rules = threading.Event()
        self._rules: list[tuple[str, str, int]] = []
        self._requests: list[dict[str, str]] = []
        self._backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._bucket = ""

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        match path:
            case "/_rules":
                length = int(environ["CONTENT_LENGTH"])
                rules = json.loads(environ["wsgi.input"].read(length))
                self._obey(parse_qs(query)["bucket"][0], rules)
                return _answer(start, 200, b"")
            case "/_state":
                return _answer(start, 200, json.dumps(self._state()).encode())
            case "/_wait":
                wanted = parse_qs(query)
                self._wait(wanted["method"][0], wanted["query"][0])
                return _answer(start, 200, b"")
            case _:
                return self._serve(environ, start)

    def _serve(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        bucket = environ["PATH_INFO"].split("/")[1]
        method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
        status = self._status(bucket, method, query)
        end_of_rules = self._end_of_rules
        if status is None:
            answer = list(self._moto(environ, start))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            answer = []
        self._note(bucket, {"method": method, "query": query})
        if status is None:
            return answer
        if not status:
            end_of_rules.wait()
        return _answer(start, status or 500, b"<Error><Code>Broken</Code></Error>")

    def _status(self, bucket: str, method: str, query: str) -> int | None:
        for wanted, pattern, status in self._rules:
            if (
                bucket == self._bucket
                and re.fullmatch(wanted, method)
                and re.search(pattern, query)
            ):
                return status
        return None

    def _note(self, bucket: str, request: dict[str, str]) -> None:
        # What a cancelled test sent may be done with only now: its bucket is another one.
        with self._changed:
            if bucket == self._bucket:
                self._requests.append(request)
                self._changed.notify_all()

    def _obey(self, bucket: str, rules: list[tuple[str, str, int]]) -> None:
        with self._changed:
            self._backend.buckets.pop(self._bucket, None)
            self._backend.create_bucket(bucket, "us-east-1")
            self._bucket, self._rules, self._requests = bucket, rules, []
            self._end_of_rules.set()
            self._end_of_rules = threading.Event()

    def _wait(self, method: str, pattern: str) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: any(
                    each["method"] == method and re.search(pattern, each["query"])
                    for each in self._requests
                ),
                timeout=20,
            )

    def _state(self) -> dict[str, Any]:
        bucket = self._backend.buckets[self._bucket]
        objects = {name: hashlib.sha256(key.value).hexdigest() for name, key in bucket.keys.items()}
        uploads = list(bucket.multiparts)
        return {"objects": objects, "uploads": uploads, "requests": self._requests}


def _answer(start: Start, status: int, body: bytes) -> Iterable[bytes]:
    start(f"{status} .", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, Server(), threaded=True, request_handler=_Quiet)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()
