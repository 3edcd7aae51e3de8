"""Log lines that a request cannot forge: one JSON object a line, in ASCII, with the request's ids.

A log is evidence, and its readers split it at line ends. Text from a request body that reaches a
plain formatter can end the line and write the next one itself (CWE-117). JSON in ASCII leaves no
such character: line feeds, control characters, NEL and U+2028 all come out escaped. What a line
says about itself (time, level, logger, ids) is written last, so no `extra` replaces it.

Ids are noted when a record is made, in the context of the request, so they stay right when another
thread formats it. Exceptions come as fields named by OpenTelemetry's conventions, with the whole
traceback: `str(error)` alone does not say where.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from companion.serving.tracing.request_id import current_request_id, request_id_of

_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_IDS = "companion_ids"  # the attribute of a record that `note_ids` sets
_DELETE = "\x7f"  # the one control character that JSON in ASCII lets through

_OWN = frozenset(
    {
        *("time", "level", "logger", "message", "request_id", "trace_id", "span_id", "stack"),
        *("exception.type", "exception.message", "exception.stacktrace"),
    }
)
_NO_EXTRA = frozenset({*RESERVED_ATTRS, "taskName", _IDS, "color_message"})  # the last: uvicorn's


def json_logging(
    stream: TextIO | None = None, *, level: int | str = logging.INFO
) -> logging.Handler:
    """Have the whole process, uvicorn included, log JSON lines to `stream` (standard error).

    Call it once the process knows that it is a server, or in the application's factory; a second
    call replaces the first. Other handlers that write to a console are taken off the root logger
    and off uvicorn's, and Python's warnings become log lines too. `uvicorn.run(log_config=None)`
    keeps uvicorn from putting its own back.

    Returns the handler, for `logging.getLogger().removeHandler`.
    """
    handler = _JsonHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(note_ids)
    for name in _UVICORN:
        logger = logging.getLogger(name)
        _take_off_consoles(logger)
        logger.propagate = True
    root = logging.getLogger()
    root.setLevel(level)
    _take_off_consoles(root)
    root.addHandler(handler)
    logging.captureWarnings(True)
    return handler


def note_ids(record: logging.LogRecord) -> bool:
    """A logging filter that lets everything through and notes the current ids on the record.

    Where there is no request any more, an exception that ended one still tells its id.
    A handler that hands records to another thread (`QueueHandler`) needs it too: the ids are those
    of the thread and task that log.
    """
    ids = {}
    error = record.exc_info[1] if record.exc_info else None
    if request_id := current_request_id() or (error and request_id_of(error)):
        ids["request_id"] = request_id
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        ids["trace_id"] = trace.format_trace_id(context.trace_id)
        ids["span_id"] = trace.format_span_id(context.span_id)
    if ids or not hasattr(record, _IDS):
        setattr(record, _IDS, ids)
    return True


class JsonLines(JsonFormatter):
    """Formats a record as one line of JSON in ASCII, whatever is in it, and does not raise.

    Fields: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and where there are such
    `request_id`, `trace_id`, `span_id`, `exception.type`, `exception.message`,
    `exception.stacktrace`, `stack`. Then what came as `extra`, or as a dictionary in the message's
    place; where that has one of these names it becomes `extra.<name>`. Numbers that JSON does not
    have (NaN) come as text.
    """

    def __init__(self) -> None:
        super().__init__(json_serializer=_serialised)

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end. A record that cannot be formatted is told as such."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - logging would print it, on lines of their own
            told = {
                **_about(record),
                "level": "ERROR",
                "message": f"a log record of {record.pathname}:{record.lineno} cannot be formatted",
                "template": record.msg
                if isinstance(record.msg, str)
                else type(record.msg).__name__,
                **_exception_fields(error),
            }
            return _serialised(told)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill `log_data`: the record's own fields, then what came with it under other names."""
        log_data |= {**_about(record), "message": record.message}
        log_data |= getattr(record, _IDS, {})
        if record.exc_info and record.exc_info[1]:
            log_data |= _exception_fields(record.exc_info[1])
        elif record.exc_text and not record.exc_info:  # it came from another process
            log_data["exception.stacktrace"] = record.exc_text
        if record.stack_info:
            log_data["stack"] = record.stack_info
        extra = {name: value for name, value in vars(record).items() if name not in _NO_EXTRA}
        for name, value in {**message_dict, **extra}.items():
            if name not in ("exc_info", "stack_info"):  # put there by the base class, told above
                log_data[f"extra.{name}" if name in _OWN else name] = value


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Known by its class, so that a second `json_logging` finds the first."""


def _about(record: logging.LogRecord) -> dict[str, Any]:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "time": time.replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
    }


def _exception_fields(error: BaseException) -> dict[str, str]:
    return {
        "exception.type": type(error).__qualname__,
        "exception.message": str(error),
        "exception.stacktrace": "".join(traceback.format_exception(error)),
    }


def _serialised(log_data: dict[str, Any], **settings: Any) -> str:
    try:
        line = json.dumps(log_data, allow_nan=False, **settings)
    except ValueError:
        with_text = json.loads(json.dumps(log_data, **settings), parse_constant=str)
        line = json.dumps(with_text, **settings)
    return line.replace(_DELETE, "\\u007f")


def _take_off_consoles(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        # Exactly these classes: a file, or what a test listens with, is somebody's decision.
        if type(handler) in (logging.StreamHandler, _JsonHandler):
            logger.removeHandler(handler)
