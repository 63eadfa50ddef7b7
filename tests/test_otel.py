"""OpenTelemetry: one job is one trace, wherever its parts happen, and nothing secret is in it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from af10_async import AF10Error, NotFoundError
from af10_async.otel import OpenTelemetry
from af10_async.sandbox import Account, Fault, Sandbox

from .conftest import ClientMaker, Tls, secrets_of
from .ports import free_port

SERVER = """
import asyncio, json, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from af10_async import CallbackServer
from af10_async.otel import OpenTelemetry

async def main(port, cert, key, store):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with CallbackServer(
        port=int(port), tls_cert=cert, tls_key=key, store=store,
        on_event=OpenTelemetry(tracer_provider=provider),
    ):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    for span in spans.get_finished_spans():
        print(json.dumps({
            "name": span.name,
            "trace": span.context.trace_id,
            "parent": span.parent.span_id if span.parent else None,
        }))

asyncio.run(main(*sys.argv[1:]))
"""


class Seen:
    """A handler, and what came of it."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.handler = OpenTelemetry(
            tracer_provider=self.provider, meter_provider=self._meters, **options
        )

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def points(self, metric: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        found = [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]
        return sorted(found, key=lambda point: str(point.attributes))

    def close(self) -> None:
        self.provider.shutdown()
        self._meters.shutdown()


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.close()


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


async def test_one_job_is_one_trace(make_client: ClientMaker, seen: Seen, tmp_path: Path) -> None:
    async with make_client(on_event=seen.handler, name="amsterdam") as af10:
        await af10.authenticate()
        job = af10.backup_owner()
        await (await job).save(tmp_path)
    start = seen.named("start POST /backup/owner")
    parts = [seen.named(name) for name in ("POST /backup/owner", "callback", "GET /webhook")]
    parts.append(seen.named("download"))
    assert start.parent is None
    assert {span.parent.span_id if span.parent else None for span in parts} == {span_id(start)}
    assert {trace_id(span) for span in parts} == {trace_id(start)}
    kinds = [span.kind for span in (start, *parts)]
    assert kinds == [
        SpanKind.PRODUCER,
        SpanKind.CLIENT,
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
    ]
    assert dict(start.attributes or {}) == {
        "af10.job.key": job.key,
        "af10.account": "amsterdam",
        "af10.sent": "yes",
    }
    assert (parts[3].attributes or {})["af10.file.size"] == 64 * 1024


async def test_the_trace_of_a_job_is_that_of_the_span_that_is_current(
    make_client: ClientMaker, seen: Seen
) -> None:
    tracer = seen.provider.get_tracer("of the user")
    async with make_client(on_event=seen.handler) as af10:
        with tracer.start_as_current_span("nightly") as outer:
            file = await af10.backup_owner()
        await file.read()
    start, download = seen.named("start POST /backup/owner"), seen.named("download")
    assert start.parent is not None
    assert start.parent.span_id == outer.get_span_context().span_id
    assert trace_id(download) == outer.get_span_context().trace_id


async def test_quick_calls_are_children_of_the_current_span_and_are_not_mixed_up(
    make_client: ClientMaker, seen: Seen
) -> None:
    tracer = seen.provider.get_tracer("of the user")

    async with make_client(on_event=seen.handler) as af10:
        await af10.authenticate()

        async def one(number: int) -> None:
            with tracer.start_as_current_span(f"of {number}"):
                await af10.get(f"/vehicle/{number}")

        await asyncio.gather(*(one(number) for number in range(1, 21)))
    calls = [span for span in seen.spans if span.name == "GET /vehicle/{id}"]
    assert len(calls) == 20
    for call in calls:
        number = str((call.attributes or {})["url.path"]).rpartition("/")[2]
        assert call.parent is not None
        assert call.parent.span_id == span_id(seen.named(f"of {number}"))


async def test_a_call_that_fails_says_so_in_its_span_and_its_metrics(
    make_client: ClientMaker, sandbox: Sandbox, seen: Seen
) -> None:
    sandbox.faults.add(Fault.status(503, on="vehicle"))
    async with make_client(on_event=seen.handler) as af10:
        await af10.get("/vehicle/1")
        with pytest.raises(NotFoundError):
            await af10.get("/vehicle/999999")
    first, second, third = [span for span in seen.spans if span.name == "GET /vehicle/{id}"]
    assert [span.status.status_code for span in (first, second, third)] == [
        StatusCode.ERROR,
        StatusCode.UNSET,
        StatusCode.ERROR,
    ]
    assert (second.attributes or {})["http.request.resend_count"] == 1
    assert "http.request.resend_count" not in (first.attributes or {})
    points = seen.points("http.client.request.duration")
    vehicle = [p for p in points if p.attributes["url.template"] == "/vehicle/{id}"]
    assert {(p.attributes["http.response.status_code"], p.count) for p in vehicle} == {
        (200, 1),
        (404, 1),
        (503, 1),
    }
    assert [point.value for point in seen.points("af10.retries")] == [1]


async def test_jobs_callbacks_and_downloads_are_counted(
    make_client: ClientMaker, sandbox: Sandbox, seen: Seen
) -> None:
    sandbox.faults.add(Fault.status(403, {"errorCode": 403}, on="start", skip=2))
    async with make_client(on_event=seen.handler) as af10:
        for _ in range(2):
            await (await af10.backup_owner()).read()
        with pytest.raises(AF10Error):
            await af10.backup_owner()
    found = {p.attributes["af10.outcome"]: p.count for p in seen.points("af10.job.duration")}
    assert found == {"ready": 2, "failed": 1}
    assert [p.value for p in seen.points("af10.callbacks")] == [2]
    assert [p.value for p in seen.points("af10.download.size")] == [2 * 64 * 1024]
    assert [p.count for p in seen.points("af10.download.duration")] == [2]


async def test_a_download_that_fails_is_an_error_without_a_text(
    make_client: ClientMaker, sandbox: Sandbox, seen: Seen
) -> None:
    sandbox.faults.add(Fault.status(404, on="file", times=None))
    async with make_client(on_event=seen.handler) as af10:
        file = await af10.backup_owner()
        with pytest.raises(AF10Error):
            await file.read()
    download = seen.named("download")
    assert download.status.status_code is StatusCode.ERROR
    assert download.status.description == "DownloadRefusedError"
    assert not download.events


@asynccontextmanager
async def receiver(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A callback server with tracing, in a process of its own."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, *arguments, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_trace_goes_on_in_other_processes(
    make_client: ClientMaker, seen: Seen, tls: Tls, tmp_path: Path
) -> None:
    """One starts the job, another receives its callback, and a third client fetches the file."""
    store, port = f"sqlite:{tmp_path / 'jobs.db'}", free_port()
    shared: dict[str, Any] = {
        "store": store,
        "public_url": f"https://127.0.0.1:{port}",
        "tls_cert": None,
        "tls_key": None,
    }
    async with receiver(str(port), str(tls.cert), str(tls.key), store) as process:
        async with make_client(on_event=seen.handler, **shared) as af10:
            job = await af10.backup_owner().start()
        other = Seen()
        async with make_client(on_event=other.handler, **shared) as af10:
            await (await af10.job(job.key)).save(tmp_path / "files")
        out, _ = await process.communicate(b"\n")
    (callback,) = [json.loads(line) for line in out.splitlines()]
    start = seen.named("start POST /backup/owner")
    assert (callback["name"], callback["trace"]) == ("callback", trace_id(start))
    assert callback["parent"] == span_id(start)
    for name in ("GET /webhook", "download"):
        found = other.named(name)
        assert trace_id(found) == trace_id(start)
        assert found.parent is not None
        assert found.parent.span_id == span_id(start)
    other.close()


async def test_nothing_secret_stands_in_a_span_or_a_metric(tls: Tls, tmp_path: Path) -> None:
    account = Account("canary-key", "canary user", "canary-password")
    faults = [Fault.echo(on="vehicle"), Fault.forged_first(), Fault.truncated(100)]
    seen = Seen(account_in_metrics=True)
    async with Sandbox(callback_ca=tls.ca, accounts=[account]) as sandbox:
        from af10_async import AF10Client

        sandbox.faults.add(*faults)
        async with AF10Client(
            base_url=sandbox.base_url,
            api_key=account.api_key,
            username=account.username,
            password=account.password,
            tls_cert=tls.cert,
            tls_key=tls.key,
            on_event=seen.handler,
            name="amsterdam",
        ) as af10:
            with pytest.raises(AF10Error):
                await af10.get("/vehicle/1", params={"search": "canary"})
            await (await af10.backup_owner()).save(tmp_path)
        text = "".join(span.to_json() for span in seen.spans)
        text += str(
            [seen.points(name) for name in ("http.client.request.duration", "af10.retries")]
        )
        assert "amsterdam" in text
        leaked = [name for name, secret in secrets_of(sandbox).items() if secret in text]
    assert not leaked
    assert "canary" not in text
    assert "/files/" not in text
    seen.close()


async def test_without_a_provider_nothing_is_recorded_and_nothing_breaks(
    make_client: ClientMaker,
) -> None:
    async with make_client(on_event=OpenTelemetry()) as af10:
        assert len(await (await af10.backup_owner()).read()) == 64 * 1024


def test_a_span_whose_end_never_comes_makes_room_at_last(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    from af10_async import otel
    from af10_async.events import DownloadBegan

    monkeypatch.setattr(otel, "_MOST_OPEN", 3)
    for number in range(5):
        seen.handler(DownloadBegan(id=number, account=None, key=None, at=0.0))
    assert len(seen.spans) == 2
