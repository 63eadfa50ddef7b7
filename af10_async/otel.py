"""OpenTelemetry: events as spans and metrics; the extra `otel` is needed.

```python
async with AF10Client(..., on_event=OpenTelemetry()) as af10: ...
```

One job is one trace. Its root is the start (or whatever span was current then); below it are the
POST, the callback, the request that redeems, and the download. The job's `traceparent` is kept in
its record, so all of them join the same trace, in whatever process they happen, as long as each has
such a handler. Calls outside of jobs are children of the span that is current.

Names and attributes follow the semantic conventions for HTTP clients; `docs/observability.md` lists
them. Nothing secret is in them: no query, no credentials, no address of a file, no text of an
error.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

from .errors import AF10Error, MissingExtraError
from .events import (
    CallbackReceived,
    CallBegan,
    CallEnded,
    CallRetried,
    DownloadBegan,
    DownloadEnded,
    Event,
    JobEnded,
    StartBegan,
    StartEnded,
)

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise MissingExtraError(
        'tracing needs the extra "otel": pip install "af10-async[otel]"'
    ) from None

__all__ = ["OpenTelemetry"]

_SCOPE = "af10_async"
_MOST_OPEN = 100_000
"""Most spans that wait for their end; the oldest is ended, should one never come."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Boundaries that the semantic conventions give for the duration of requests."""
_LONG = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_ID = re.compile(r".*[0-9%].*|.{32,}")
"""What in a path is one of very many: whatever has a digit in it, and what is long."""


class OpenTelemetry:
    """A handler of events (`on_event=`); the same one may serve many clients and servers.

    Args:
        tracer_provider: Where spans go; the global provider when not given.
        meter_provider: Where metrics go; the global provider when not given.
        account_in_metrics: Put the name of the client into the attributes of metrics; with hundreds
            of accounts that makes hundreds of series.

    Raises:
        MissingExtraError: on import, when OpenTelemetry is not installed.

    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        account_in_metrics: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._account_in_metrics = account_in_metrics
        self._propagator = TraceContextTextMapPropagator()
        self._open: OrderedDict[int, Span] = OrderedDict()
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._requests = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of requests to AF10.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._jobs = meter.create_histogram(
            "af10.job.duration",
            unit="s",
            description="From the making of a job to its result.",
            explicit_bucket_boundaries_advisory=_LONG,
        )
        self._callbacks = meter.create_counter(
            "af10.callbacks", unit="{callback}", description="Callbacks that were kept."
        )
        self._downloads = meter.create_histogram(
            "af10.download.duration",
            unit="s",
            description="Duration of downloads.",
            explicit_bucket_boundaries_advisory=_LONG,
        )
        self._bytes = meter.create_counter(
            "af10.download.size", unit="By", description="Bytes of files that arrived whole."
        )
        self._retries = meter.create_counter(
            "af10.retries", unit="{request}", description="Requests that are sent again."
        )

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case CallBegan():
                self._call_began(event)
            case CallEnded():
                self._call_ended(event)
            case StartBegan():
                self._start_began(event)
            case StartEnded():
                self._end(event.id, event.error, {"af10.sent": _known(event.sent)})
            case CallbackReceived():
                self._callback(event)
            case DownloadBegan():
                self._download_began(event)
            case DownloadEnded():
                self._download_ended(event)
            case JobEnded():
                self._job_ended(event)
            case CallRetried():
                self._retries.add(1, self._labels(event.account, event.method, event.path))
            case _:
                pass

    def trace_of(self, start: StartBegan) -> str | None:
        """The `traceparent` of a job whose start it was just told of; None without a trace."""
        span = self._open.get(start.id)
        if span is None:
            return None
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return carrier.get("traceparent")

    # -- spans -------------------------------------------------------------------------------------

    def _begin(
        self, number: int, name: str, kind: SpanKind, parent: str | None, attributes: dict[str, Any]
    ) -> None:
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(
            name, context, kind, {key: v for key, v in attributes.items() if v is not None}
        )
        self._open[number] = span
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].end()

    def _end(
        self, number: int, error: AF10Error | None, attributes: dict[str, Any] | None = None
    ) -> None:
        span = self._open.pop(number, None)
        if span is None:
            return
        for name, value in (attributes or {}).items():
            if value is not None:
                span.set_attribute(name, value)
        if error is not None:
            kind = type(error).__name__
            span.set_attribute("error.type", kind)
            span.set_status(Status(StatusCode.ERROR, kind))
        span.end()

    def _call_began(self, event: CallBegan) -> None:
        host = urlsplit(f"//{event.host}")
        attributes = {
            "http.request.method": event.method,
            "url.path": event.path,
            "server.address": host.hostname,
            "server.port": host.port,
            "http.request.resend_count": event.attempt - 1 or None,
            "af10.account": event.account,
        }
        name = f"{event.method} {_template(event.path)}"
        self._begin(event.id, name, SpanKind.CLIENT, event.trace, attributes)

    def _call_ended(self, event: CallEnded) -> None:
        labels = self._labels(event.account, event.method, event.path)
        problem = _problem(event)
        if event.status is not None:
            labels["http.response.status_code"] = event.status
        if problem is not None:
            labels["error.type"] = problem
        self._requests.record(event.seconds, labels)
        span = self._open.get(event.id)
        if span is not None and problem is not None and event.error is None:
            span.set_attribute("error.type", problem)
            span.set_status(Status(StatusCode.ERROR))
        self._end(event.id, event.error, {"http.response.status_code": event.status})

    def _start_began(self, event: StartBegan) -> None:
        attributes = {"af10.job.key": event.key, "af10.account": event.account}
        name = f"start {event.method} {_template(event.path)}"
        # Its parent is whatever the caller is doing: this is where the job's own trace begins.
        self._begin(event.id, name, SpanKind.PRODUCER, None, attributes)

    def _callback(self, event: CallbackReceived) -> None:
        parent = self._propagator.extract({"traceparent": event.trace}) if event.trace else None
        attributes: dict[str, Any] = {"af10.job.key": event.key, "af10.orphan": event.is_orphan}
        span = self._tracer.start_span(
            "callback",
            parent,
            SpanKind.CONSUMER,
            attributes,
            start_time=int((event.at - event.seconds) * 1e9),
        )
        span.end(int(event.at * 1e9))
        self._callbacks.add(1, {"af10.orphan": event.is_orphan})

    def _download_began(self, event: DownloadBegan) -> None:
        attributes = {"af10.job.key": event.key, "af10.account": event.account}
        self._begin(event.id, "download", SpanKind.INTERNAL, event.trace, attributes)

    def _download_ended(self, event: DownloadEnded) -> None:
        attributes = {"af10.file.size": event.size, "af10.attempts": event.attempts}
        self._end(event.id, event.error, attributes)
        labels = self._labels(event.account)
        if event.error is not None:
            labels["error.type"] = type(event.error).__name__
        self._downloads.record(event.seconds, labels)
        if event.size is not None:
            self._bytes.add(event.size, self._labels(event.account))

    # -- metrics -----------------------------------------------------------------------------------

    def _job_ended(self, event: JobEnded) -> None:
        labels = self._labels(event.account, event.method, event.path)
        labels["af10.outcome"] = str(event.state)
        self._jobs.record(event.seconds, labels)

    def _labels(
        self, account: str | None, method: str | None = None, path: str | None = None
    ) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        if method is not None:
            labels["http.request.method"] = method
        if path is not None:
            labels["url.template"] = _template(path)
        if self._account_in_metrics and account is not None:
            labels["af10.account"] = account
        return labels


def _problem(event: CallEnded) -> str | None:
    if event.error is not None:
        return type(event.error).__name__
    return str(event.status) if event.status is not None and event.status >= 400 else None


def _template(path: str) -> str:
    """A path whose ids are not told apart."""
    return "/".join("{id}" if _ID.fullmatch(part) else part for part in path.split("/"))


def _known(sent: bool | None) -> str:
    return "unknown" if sent is None else "yes" if sent else "no"
