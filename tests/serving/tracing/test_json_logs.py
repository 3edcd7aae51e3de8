"""Log lines that nobody can forge, with what a reader needs to find the request again."""

import asyncio
import io
import json
import logging
import logging.handlers
import queue
import warnings

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from companion.serving.tracing import JsonLines, RequestId, json_logging, note_ids

LOGGER = logging.getLogger("companion.test")


@pytest.fixture
def stream():
    """What the process logs, as text; the logging of the test run is put back afterwards."""
    names = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    json_logging(stream)
    yield stream
    logging.captureWarnings(False)
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def apart(stream):
    """A logger whose records reach our handler and nobody else's."""
    (ours,) = [h for h in logging.getLogger().handlers if isinstance(h.formatter, JsonLines)]
    logger = logging.Logger("apart", logging.INFO)
    logger.addHandler(ours)
    return logger


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


FORGED = "2026-11-23 08:00:00,000 INFO [r2] Prediction: 0.01"
LINE_ENDS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("end", LINE_ENDS)
def test_no_line_end_of_any_kind_makes_a_second_line(stream, end):
    text = f"C1{end}{FORGED}"
    LOGGER.info("scoring %s", text, extra={"customer": text, text: 1})
    (line,) = lines(stream)
    assert line["message"] == f"scoring {text}"
    assert line["customer"] == text


def test_every_character_below_and_above_comes_out_escaped_and_whole(stream):
    text = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0xFEFF, 0x1F600]))
    LOGGER.info(text)
    written = stream.getvalue()
    assert written.endswith("\n")
    assert all(" " <= character <= "~" for character in written[:-1])
    assert json.loads(written)["message"] == text


def test_half_a_character_comes_out_escaped_too():
    # Formatted here: what listens to all logs during a test cannot pass it on.
    written = JsonLines().format(logging.makeLogRecord({"msg": "\ud800"}))
    assert json.loads(written)["message"] == "\ud800"
    assert written.isascii()


def test_a_line_says_when_how_bad_and_who(stream):
    LOGGER.warning("careful")
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "WARNING", "logger": "companion.test", "message": "careful"}


def test_extra_fields_and_dictionaries_become_fields(stream):
    LOGGER.info("scored", extra={"probability": 0.25})
    LOGGER.info({"probability": 0.5})
    first, second = lines(stream)
    assert (first["message"], first["probability"]) == ("scored", 0.25)
    assert (second["message"], second["probability"]) == ("", 0.5)


@pytest.mark.parametrize("field", ["time", "level", "logger", "request_id", "trace_id", "stack"])
def test_what_a_line_says_about_itself_cannot_be_replaced(stream, field):
    LOGGER.info({field: "forged"})
    LOGGER.info("text", extra={field: "forged"})
    for line in lines(stream):
        assert line.get(field) != "forged"
        assert line[f"extra.{field}"] == "forged"


def test_an_exception_comes_as_fields_with_its_traceback(stream):
    try:
        raise KeyError(f"C1\n{FORGED}")
    except KeyError:
        LOGGER.exception("scoring failed")
    (line,) = lines(stream)
    assert line["exception.type"] == "KeyError"
    assert FORGED in line["exception.message"]
    assert line["exception.stacktrace"].startswith("Traceback (most recent call last):")
    assert "test_json_logs.py" in line["exception.stacktrace"]
    assert "exc_info" not in line


def test_exc_info_without_an_exception_adds_nothing(stream):
    LOGGER.error("no exception", exc_info=True)
    (line,) = lines(stream)
    assert not [name for name in line if name.startswith("exception")]


def test_a_stack_comes_as_a_field(stream):
    LOGGER.info("here", stack_info=True)
    (line,) = lines(stream)
    assert "test_json_logs.py" in line["stack"]
    assert "stack_info" not in line


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_come_as_text(stream, number):
    LOGGER.info("scored", extra={"probability": {"raw": [number]}})
    (line,) = lines(stream)
    assert float(line["probability"]["raw"][0]) == pytest.approx(number, nan_ok=True)
    assert isinstance(line["probability"]["raw"][0], str)


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


def test_a_record_that_cannot_be_formatted_is_one_line_that_says_so(stream, apart, capsys):
    circle = []
    circle.append(circle)
    apart.info("%d", f"C1\n{FORGED}")
    apart.info("circle", extra={"circle": circle})
    apart.info(Unspeakable())
    told = lines(stream)
    assert [line["level"] for line in told] == ["ERROR"] * 3
    assert all("cannot be formatted" in line["message"] for line in told)
    assert [line["template"] for line in told] == ["%d", "circle", "Unspeakable"]
    assert told[0]["exception.type"] == "TypeError"
    assert capsys.readouterr().err == ""


def within_a_request(work, request_id="abc"):
    async def app(scope, receive, send):
        work()

    async def run():
        scope = {"type": "http", "headers": [(b"x-request-id", request_id.encode())]}
        await RequestId(app)(scope, None, None)

    asyncio.run(run())


def test_a_line_carries_the_id_of_its_request(stream):
    within_a_request(lambda: LOGGER.info("inside", extra={"request_id": "forged"}))
    LOGGER.info("outside")
    inside, outside = lines(stream)
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_a_line_carries_the_trace_and_span_that_it_was_written_in(stream):
    with TracerProvider().get_tracer("t").start_as_current_span("s") as current:
        LOGGER.info("inside")
    (line,) = lines(stream)
    context = current.get_span_context()
    assert line["trace_id"] == trace.format_trace_id(context.trace_id)
    assert line["span_id"] == trace.format_span_id(context.span_id)


def test_ids_stay_right_when_another_thread_writes(stream, apart):
    waiting = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.addFilter(note_ids)
    in_the_request = logging.Logger("handed over", logging.INFO)
    in_the_request.addHandler(handler)
    within_a_request(lambda: in_the_request.info("inside"))
    apart.handle(waiting.get_nowait())
    (line,) = lines(stream)
    assert line["request_id"] == "abc"


def test_a_traceback_from_another_process_stays_one_field(stream, apart):
    record = logging.makeLogRecord(
        {"msg": "lost", "levelno": 40, "exc_text": f"Traceback …\n{FORGED}"}
    )
    apart.handle(record)
    (line,) = lines(stream)
    assert line["exception.stacktrace"].endswith(FORGED)


def test_calling_it_twice_does_not_double_the_lines(stream):
    json_logging(stream)
    LOGGER.info("once")
    assert len(lines(stream)) == 1


def test_the_level_is_set(stream):
    json_logging(stream, level="ERROR")
    LOGGER.warning("not told")
    LOGGER.error("told")
    assert [line["message"] for line in lines(stream)] == ["told"]


def test_other_consoles_are_taken_off_and_files_are_left(stream, tmp_path, capsys):
    console, file = logging.StreamHandler(), logging.FileHandler(tmp_path / "log")
    root = logging.getLogger()
    root.addHandler(console)
    root.addHandler(file)
    json_logging(stream)
    assert console not in root.handlers
    assert file in root.handlers
    file.close()


def test_warnings_become_lines(stream):
    with warnings.catch_warnings():
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # inside of pytest's own catching
        warnings.simplefilter("always")
        warnings.warn(f"careful\n{FORGED}", stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines(stream)
    assert line["logger"] == "py.warnings"
    assert FORGED in line["message"]


def test_uvicorns_own_loggers_write_the_same_lines(stream):
    from uvicorn import Config

    Config("none:none")  # puts uvicorn's own handlers on
    json_logging(stream)
    logging.getLogger("uvicorn.error").info("up", extra={"color_message": "\x1b[32mup"})
    logging.getLogger("uvicorn.access").info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:7", "GET", "/a", "1.1", 200
    )
    error, access = lines(stream)
    assert error["message"] == "up"
    assert "color_message" not in error
    assert access["message"] == '127.0.0.1:7 - "GET /a HTTP/1.1" 200'


def test_standard_error_is_where_it_goes_by_default(stream, capsys):
    handler = json_logging()
    LOGGER.info("told")
    logging.getLogger().removeHandler(handler)
    assert json.loads(capsys.readouterr().err)["message"] == "told"
