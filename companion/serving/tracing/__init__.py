"""Tracing: what happened to this request, where its time went, and who else took part.

Five answers that fit together: an id on every answer and log line (`request_id`), the durations
of its parts in a header (`server_timing`), log lines that a request cannot forge (`json_logs`), a
tree of timed spans across services (`telemetry`, imported by its own name, since it needs FastAPI
and OpenTelemetry's SDK), and one line for each request (`access_log`).

The order around an application: `RequestId(AccessLog(ServerTiming(traces.around(app)), note))`.
"""

from companion.serving.tracing.access_log import AccessLines, AccessLog, Served
from companion.serving.tracing.json_logs import JsonLines, json_logging, note_ids
from companion.serving.tracing.request_id import (
    RequestId,
    aforward_request_id,
    current_request_id,
    forward_request_id,
    new_request_id,
    request_id_of,
)
from companion.serving.tracing.server_timing import ServerTiming, span

__all__ = [
    "AccessLines",
    "AccessLog",
    "JsonLines",
    "RequestId",
    "Served",
    "ServerTiming",
    "aforward_request_id",
    "current_request_id",
    "forward_request_id",
    "json_logging",
    "new_request_id",
    "note_ids",
    "request_id_of",
    "span",
]
