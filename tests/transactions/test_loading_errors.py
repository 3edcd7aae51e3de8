"""What is wrong with a foreign file is said with its name, its column, and where it stands."""

import contextlib
import gzip
import random

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from companion.transactions.loading import load
from companion.transactions.loading.errors import (
    ColumnError,
    FileFormatError,
    LoadError,
    ValueInFileError,
)

HEADER = "time,customer_id,merchant_id,amount"
TIME = "2024-05-31T14:03:22Z"
GOOD = f"{TIME},1,2,9.50"


@pytest.fixture
def write(tmp_path):
    def write(*lines, name="payments.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes("\n".join([*lines, ""]).encode(encoding))
        return path

    return write


def refused(kind, path, columns=None, **options):
    """The error of `kind` that loading ends with; whatever it is, it names the file."""
    with pytest.raises(kind) as caught:
        load(path, columns, **options)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    return caught.value


def parquet(tmp_path, **columns):
    frame = {
        "time": pd.to_datetime(["2024-05-31"], utc=True),
        "customer_id": [1],
        "merchant_id": [2],
        "amount": [9.5],
    }
    path = tmp_path / "payments.parquet"
    pq.write_table(pa.table({**frame, **columns}), path)
    return path


# ---- the file


def test_a_file_that_is_not_there(tmp_path):
    assert "there is no such file" in str(refused(FileFormatError, tmp_path / "nowhere.csv"))


def test_a_folder(tmp_path):
    assert "is a folder" in str(refused(FileFormatError, tmp_path))


@pytest.mark.parametrize("content", [b"", b" \n\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file(tmp_path, content):
    path = tmp_path / "empty.csv"
    path.write_bytes(content)
    assert "the file is empty" in str(refused(FileFormatError, path))


@pytest.mark.parametrize("lines", [(HEADER,), (HEADER, "", "")])
def test_a_header_and_nothing_else(write, lines):
    assert "column names and no rows" in str(refused(FileFormatError, write(*lines)))


def test_a_parquet_file_without_rows(tmp_path):
    path = tmp_path / "none.parquet"
    pq.write_table(pq.read_table(parquet(tmp_path)).slice(0, 0), path)
    assert "column names and no rows" in str(refused(FileFormatError, path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 and so on", "zip archive or an Excel file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is no CSV: it holds zero bytes"),
        ("ä,b\n".encode("utf-16"), "is written in UTF-16: say encoding='utf-16'"),
    ],
)
def test_what_is_no_csv(tmp_path, content, words):
    path = tmp_path / "payments.csv"
    path.write_bytes(content)
    assert words in str(refused(FileFormatError, path))


def test_a_csv_that_is_called_parquet(write):
    path = write(HEADER, GOOD, name="payments.parquet")
    assert "is no Parquet file" in str(refused(FileFormatError, path))


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_a_parquet_file_that_is_cut_short(tmp_path, cut):
    path = parquet(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    assert "damaged" in str(refused(FileFormatError, path))


def test_a_parquet_file_whose_pages_are_damaged(tmp_path):
    path = parquet(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[4:60] = b"\xff" * 56
    path.write_bytes(whole)
    assert "damaged" in str(refused(FileFormatError, path))


def test_text_of_parquet_that_is_no_utf_8(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\x01\0\0\0"), pa.py_buffer(b"\xe6")]
    )
    assert "damaged" in str(refused(FileFormatError, parquet(tmp_path, customer_id=broken)))


@pytest.mark.parametrize("cut", [12, -9])
def test_a_gzip_file_that_is_cut_short(tmp_path, cut):
    path = tmp_path / "payments.csv.gz"
    rows = "".join(f"{TIME},{n},{n * 7919 % 104729},9\n" for n in range(200_000))
    path.write_bytes(gzip.compress(f"{HEADER}\n{rows}".encode(), mtime=0)[:cut])
    assert "cut short or damaged" in str(refused(FileFormatError, path))


def test_another_encoding_names_the_first_line_that_shows_it(write):
    path = write(HEADER, GOOD, GOOD.replace(",1,", ",Jürgen,"), encoding="latin-1")
    error = refused(FileFormatError, path)
    assert "line 3 is not written in utf-8" in str(error)
    assert error.rows == (3,)


def test_another_encoding_may_show_in_the_header_already(write):
    path = write(f"{HEADER},Händler", f"{GOOD},x", encoding="latin-1")
    assert refused(FileFormatError, path).rows == (1,)


def test_an_encoding_that_does_not_exist(write):
    error = refused(FileFormatError, write(HEADER, GOOD), encoding="utf-9")
    assert "there is no encoding 'utf-9'" in str(error)


def test_ragged_rows_are_named_by_their_lines(write):
    path = write(HEADER, GOOD, f"{GOOD},7", "", GOOD, "1,2", *[f"{GOOD},7"] * 5)
    error = refused(FileFormatError, path)
    assert error.rows == (3, 6, 7, 8, 9)
    assert "the header has 4 fields, and not every line has" in str(error)
    assert "line 3 has 5, line 6 has 2" in str(error)
    assert "and 2 more" in str(error)


def test_a_quote_that_is_never_closed(write):
    path = write(HEADER, f'{TIME},"1,2,9', GOOD, GOOD)
    assert "a quote that is never closed" in str(refused(FileFormatError, path))


def test_a_quote_that_swallows_very_many_lines(write):
    path = write(HEADER, GOOD, f'{TIME},"1,2,9', *[GOOD] * 20_000)
    error = refused(FileFormatError, path)
    assert "line 3 has no end" in str(error)
    assert error.rows == (3,)


def test_a_quote_that_swallows_more_than_a_block(write):
    path = write(HEADER, f'{TIME},"1,2,9', *[GOOD] * 400_000)
    refused(FileFormatError, path)


def test_a_header_that_is_no_line_of_csv(tmp_path):
    path = tmp_path / "payments.csv"
    path.write_text('"' + "a" * 200_000)
    assert "its header is no line of CSV" in str(refused(FileFormatError, path))


# ---- its columns


def test_a_missing_column_comes_with_the_nearest_name(write):
    error = refused(ColumnError, write("time,customer,merchant_id,Amount", GOOD))
    assert error.columns == ("customer_id", "amount")
    assert "'customer_id', which is required (did you mean 'customer'?)" in str(error)
    assert "'amount', which is required (did you mean 'Amount'?)" in str(error)
    assert "It has 'time', 'customer', 'merchant_id', 'Amount'" in str(error)


def test_a_mistyped_column_comes_with_the_nearest_name(write):
    path = write("time,customer_id,merchant_id,amt_cents", GOOD)
    error = refused(ColumnError, path, {"amount": "amt_cent"})
    assert "no column 'amt_cent' (did you mean 'amt_cents'?)" in str(error)


def test_an_optional_column_that_was_asked_for_must_be_there(write):
    error = refused(ColumnError, write(HEADER, GOOD), {"device_id": "handset"})
    assert error.columns == ("handset",)


def test_a_required_column_cannot_be_left_out(write):
    assert refused(ColumnError, write(HEADER, GOOD), {"amount": None}).columns == ("amount",)


def test_one_column_alone_hints_at_the_delimiter(write):
    path = write("time customer_id merchant_id amount", "x")
    assert "is the delimiter right?" in str(refused(ColumnError, path))


def test_very_many_columns_are_not_all_listed(write):
    path = write(",".join(f"c{n}" for n in range(50)), ",".join("1" * 50))
    assert "'c11' and 38 more" in str(refused(ColumnError, path))


def test_a_header_of_nothing(write):
    assert "no column names" in str(refused(ColumnError, write(",,,", GOOD)))


def test_a_needed_name_that_is_there_twice(write):
    error = refused(ColumnError, write(f"{HEADER},amount", f"{GOOD},1"))
    assert error.columns == ("amount",)
    assert "more than one column is called 'amount'" in str(error)


def test_a_name_that_nobody_needs_may_be_there_twice(write):
    assert len(load(write(f"{HEADER},x,x", f"{GOOD},1,2")).table) == 1


def test_label_times_that_were_asked_for_need_labels(write):
    path = write(f"{HEADER},told", f"{GOOD},{TIME}")
    assert refused(ColumnError, path, {"label_time": "told"}).columns == ("is_fraud",)


# ---- its values


def bad_value(path, **options):
    return refused(ValueInFileError, path, **options)


def test_an_error_carries_column_rows_values_and_count(write):
    lines = [GOOD, *[f"{TIME},1,2,-{n}.5" for n in range(7)], GOOD]
    error = bad_value(write("time,customer_id,merchant_id,amt", *lines), columns={"amount": "amt"})
    assert (error.column, error.ours, error.count) == ("amt", "amount", 7)
    assert error.rows == (3, 4, 5, 6, 7)
    assert error.values == ("-0.5", "-1.5", "-2.5", "-3.5", "-4.5")
    assert "column 'amt' (our amount): 7 rows below 0" in str(error)
    assert "line 3: '-0.5', line 4: '-1.5'" in str(error)
    assert str(error).endswith("and 2 more")


def test_every_error_of_a_file_can_be_caught_as_one(write):
    refused(LoadError, write(HEADER, f"{TIME},1,2,x"))


def test_lines_are_those_of_an_editor(write):
    path = write(
        f"{HEADER},note", "", f'{GOOD},"two', 'lines"', "", "", f"{TIME},1,2,x,", f"{TIME},1,2,y,"
    )
    assert bad_value(path).rows == (7, 8)


def test_rows_of_parquet_are_counted_from_1(tmp_path):
    error = bad_value(parquet(tmp_path, amount=[-2.0]))
    assert error.rows == (1,)
    assert "row 1: -2.0" in str(error)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "1 row without a value"),
        ("NaN", "1 row without a value"),
        ("NULL", "1 row without a value"),
        ("inf", "1 row infinite"),
        ("-Infinity", "1 row infinite"),
        ("1e999", "1 row infinite"),
        ("1e12", "1 row above 1,000,000,000 (is it the right column?)"),
        ("-1", "1 row below 0 (a refund is no payment"),
        ("nine", "1 row with something that is no number"),
        ("1.234,50", "no number (write 1234.56"),
        ("0x10", "no number"),
        ("€5", "no number"),
    ],
)
def test_amounts_that_are_none(write, written, words):
    error = bad_value(write(HEADER, GOOD, f'{TIME},1,2,"{written}"'))
    assert words in error.problem
    assert error.rows == (3,)
    assert error.values == (written,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([None], "without a value"),
        ([float("nan")], "without a value"),
        ([float("inf")], "infinite"),
        ([-0.01], "below 0"),
        (["x"], "no number"),
        ([b"9"], "of type binary, not numbers"),
    ],
)
def test_amounts_of_parquet_that_are_none(tmp_path, values, words):
    assert words in bad_value(parquet(tmp_path, amount=values)).problem


def test_a_distance_below_0(write):
    error = bad_value(write(f"{HEADER},distance_km", f"{GOOD},-1"))
    assert error.problem == "1 row below 0"


@pytest.mark.parametrize("column", ["distance_km", "device_id", "is_online", "is_fraud"])
def test_an_optional_column_with_gaps_is_refused_rather_than_filled(write, column):
    error = bad_value(write(f"{HEADER},{column}", f"{GOOD},1", f"{GOOD},"))
    assert error.column == column
    assert error.rows == (3,)


@pytest.mark.parametrize("column", ["is_fraud", "is_online"])
@pytest.mark.parametrize("written", ["2", "-1", "fraud", "yes", "0.5"])
def test_labels_other_than_0_1_false_true(write, column, written):
    error = bad_value(write(f"{HEADER},{column}", f"{GOOD},0", f"{GOOD},{written}"))
    assert "other than 0, 1, true, false" in error.problem
    assert error.values == (written,)


@pytest.mark.parametrize(
    ("column", "row"), [("customer_id", f"{TIME},,2,9"), ("merchant_id", f"{TIME},1,null,9")]
)
def test_a_transaction_of_nobody(write, column, row):
    error = bad_value(write(HEADER, GOOD, row))
    assert error.problem == "1 row without an id"
    assert error.column == column


def test_an_id_that_is_a_number_and_not_whole(tmp_path):
    error = bad_value(parquet(tmp_path, customer_id=[1.5]))
    assert "a number that is not whole" in error.problem


def test_transactions_that_share_an_id(write):
    path = write(f"{HEADER},transaction_id", *(f"{GOOD},{name}" for name in "abacb"))
    error = bad_value(path)
    assert "4 rows share their transaction_id" in error.problem
    assert error.rows == (2, 3, 4, 6)
    assert error.values == ("a", "b", "a", "b")


def test_a_label_from_before_its_transaction(write):
    header = f"{HEADER},is_fraud,label_time"
    error = bad_value(write(header, f"{GOOD},1,2024-05-30T00:00:00Z"))
    assert "label was known before the transaction" in error.problem


# ---- its times


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "1 row without a time"),
        ("NaT", "1 row without a time"),
        ("31/05/2024 14:03", "1 row with no ISO 8601 time"),
        ("yesterday", "no ISO 8601 time"),
        ("now", "no ISO 8601 time"),
        ("2024-5-1", "no ISO 8601 time"),
        ("2024-02-30T00:00:00Z", "1 row with a time that no calendar or clock has"),
        ("2024-05-31T25:00:00Z", "1 row with a time that no calendar or clock has"),
        (
            "1717157002",
            "a bare number, whose unit nobody stated (time_format='s' would make the "
            "first one 2024-05-31)",
        ),
        ("1717157002000", "time_format='ms' would make the first one 2024-05-31"),
        ("12", "as in time_format='s' for seconds"),
        ("2024-05-31T14:03:22", "1 row without an offset from UTC, while other rows have one"),
        ("1970-01-20T21:00:00Z", "1 row before 1990 or after 2099"),
    ],
)
def test_times_that_are_none(write, written, words):
    error = bad_value(write(HEADER, GOOD, f"{written},1,2,9"))
    assert words in error.problem
    assert error.rows == (3,)
    assert error.values == (written,)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time_format": "s"}, "1 row with no number, but with time_format='s'"),
        ({"time_format": "%d.%m.%Y"}, "1 row not written as '%d.%m.%Y'"),
    ],
)
def test_times_that_are_not_written_as_stated(write, options, words):
    assert words in bad_value(write(HEADER, GOOD), **options).problem


@pytest.mark.parametrize(
    ("unit", "written"), [("ms", "1717157002"), ("s", "1717157002000"), ("s", "9" * 30)]
)
def test_a_unit_of_time_that_puts_transactions_into_another_century(write, unit, written):
    error = bad_value(write(HEADER, f"{written},1,2,9"), time_format=unit)
    assert "is the unit of time_format the right one?" in error.problem


def test_local_times_without_their_zone(write):
    error = bad_value(write(HEADER, "2024-05-31 14:03:22,1,2,9"))
    assert "a local time and no zone; state it, as in timezone='Europe/Berlin'" in error.problem
    assert "summer time" in error.problem


def test_a_local_time_that_the_clocks_skipped(write):
    path = write(HEADER, "2024-03-31 01:59:59,1,2,9", "2024-03-31 02:30:00,1,2,9")
    error = bad_value(path, timezone="Europe/Berlin")
    assert "no clock in Europe/Berlin showed" in error.problem
    assert error.rows == (3,)


def test_a_local_time_that_the_clocks_showed_twice(write):
    path = write(HEADER, "2024-10-27 02:30:00,1,2,9", "2024-10-27 03:00:00,1,2,9")
    error = bad_value(path, timezone="Europe/Berlin")
    assert "showed twice" in error.problem
    assert "ambiguous='earlier' or 'later'" in error.problem
    assert error.rows == (2,)


def test_local_times_of_parquet_need_a_zone_too(tmp_path):
    path = parquet(tmp_path, time=pd.to_datetime(["2024-05-31"]))
    assert "no zone" in bad_value(path).problem


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1717157002], "a bare number"),
        ([True], "of type bool, not times"),
        ([None], "without a ti"),
    ],
)
def test_times_of_parquet_that_are_none(tmp_path, values, words):
    assert words in bad_value(parquet(tmp_path, time=values)).problem


def test_a_time_beyond_all_calendars_is_shown_as_the_number_that_it_is(tmp_path):
    times = pa.array([2**62], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    error = bad_value(parquet(tmp_path, time=times))
    assert error.values == (2**62,)


def test_a_long_value_is_cut_in_the_message_and_whole_in_the_error(write):
    error = bad_value(write(HEADER, f"{'x' * 500},1,2,9"))
    assert len(str(error)) < 500
    assert error.values == ("x" * 500,)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_bytes_are_the_file_loads_or_is_refused_by_name(tmp_path, seed):
    rng = random.Random(seed)
    rows = [f"2024-05-{day:02}T14:03:22Z,c{day},{day % 3},{day}.50" for day in range(1, 31)]
    text = "\n".join([HEADER, *rows, ""]).encode()
    path = tmp_path / "payments"
    pq.write_table(load_table(text), path)
    for whole in (text, gzip.compress(text, mtime=0), path.read_bytes()):
        for _ in range(30):
            path.write_bytes(damaged(whole, rng))
            with contextlib.suppress(LoadError):
                assert len(load(path).table) > 0


def load_table(text):
    return pacsv.read_csv(pa.BufferReader(text))


def damaged(whole, rng):
    """`whole` with a few bytes changed, taken out or put in, or cut off."""
    data = bytearray(whole)
    for _ in range(rng.choice([1, 2, 20])):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at:at] = rng.choice([b'"', b",", b"\n", b"\0", b"\xff\xfe", b"NaN", b"e9"])
            case 2 if len(data) > 40:
                del data[at : at + rng.randrange(1, 20)]
            case _ if len(data) > 40:
                del data[max(20, at) :]
    return data
