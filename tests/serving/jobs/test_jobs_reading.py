"""A file of transactions in, good rows and reasons out, whatever somebody sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from companion.serving.jobs import (
    ColumnTypeError,
    MissingColumnsError,
    TooManyRowsError,
    UnreadableFileError,
)
from companion.serving.jobs.checking import KNOWN, NEEDED, check, reason_of
from companion.serving.jobs.reading import read_batch
from companion.serving.schemas import TransactionIn

GOOD = {
    "transaction_id": "1",
    "time": "2026-03-01T12:30:00Z",
    "customer_id": "17",
    "merchant_id": "4",
    "category": "electronics",
    "amount": "249.90",
    "distance_km": "12.5",
    "device_id": "17",
    "is_online": "true",
}
HEADER = ",".join(GOOD)


def line(**changed):
    return ",".join({**GOOD, **changed}.values())


def csv(tmp_path, *lines, header=HEADER, end="\n"):
    path = tmp_path / "batch.csv"
    path.write_bytes(end.join([header, *lines, ""]).encode())
    return path


def read(path, kind="csv", max_rows=1000):
    return read_batch(path, kind, max_rows=max_rows)


def rejects(batch):
    _, told = batch.bad_between(1, batch.rows + 1, 1000)
    return {one.row: one.reason for one in told}


def frame_of(*ids, **columns):
    frame = pd.DataFrame(
        {
            "transaction_id": ids,
            "time": pd.Timestamp("2026-03-01T12:30:00Z"),
            "customer_id": 17,
            "merchant_id": 4,
            "category": "fuel",
            "amount": 1.5,
            "distance_km": 2.0,
            "device_id": 1,
            "is_online": False,
        }
    )
    return frame.assign(**columns)


def parquet(tmp_path, frame, **options):
    path = tmp_path / "batch.parquet"
    frame.to_parquet(path, index=False, **options)
    return path


# What comes out


def test_a_csv_and_a_parquet_of_the_same_rows_read_the_same(tmp_path, transactions, parquet_file):
    transactions.to_csv(tmp_path / "t.csv", index=False)
    from_csv, from_parquet = read(tmp_path / "t.csv"), read(parquet_file, "parquet")
    pd.testing.assert_frame_equal(from_csv.frame, from_parquet.frame)
    assert from_csv.rows == from_parquet.rows == len(transactions)
    assert from_csv.frame.index.tolist() == list(range(1, len(transactions) + 1))


def test_good_rows_have_the_types_of_a_transaction(tmp_path):
    frame = read(csv(tmp_path, line(), line(transaction_id="2"))).frame
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "transaction_id": "int64",
        "time": "datetime64[us, UTC]",
        "customer_id": "int64",
        "merchant_id": "int64",
        "category": "category",
        "amount": "float64",
        "distance_km": "float64",
        "device_id": "int64",
        "is_online": "bool",
    }
    assert frame.loc[1, "time"] == pd.Timestamp("2026-03-01T12:30:00Z")


def test_columns_may_stand_in_any_order_and_others_are_not_looked_at(tmp_path):
    names = ["note", *reversed(GOOD)]
    values = ["hello", *reversed(GOOD.values())]
    batch = read(csv(tmp_path, ",".join(values), header=",".join(names)))
    assert batch.frame.loc[1, "amount"] == 249.9
    assert "note" not in batch.frame


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_empty_lines_and_line_ends_are_no_rows(tmp_path, end):
    batch = read(csv(tmp_path, line(), "", line(transaction_id="2"), "", end=end))
    assert batch.rows == 2
    assert not rejects(batch)


def test_a_quoted_field_may_hold_commas_and_lines(tmp_path):
    header = f"{HEADER},note"
    batch = read(csv(tmp_path, f'{line()},"a, b\nc"', f"{line(amount='x')},d", header=header))
    assert list(rejects(batch)) == [2]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{HEADER}\n{line()}\n", encoding="utf-8-sig")
    assert read(path).rows == 1


def test_label_times_are_read_where_the_file_has_them(tmp_path):
    header = f"{HEADER},label_time"
    path = csv(
        tmp_path,
        f"{line()},",
        f"{line(transaction_id='2')},2026-03-05T00:00:00Z",
        f"{line(transaction_id='3')},soon",
        header=header,
    )
    batch = read(path)
    assert batch.frame["label_time"].isna().tolist() == [True, False]
    assert "label_time" in rejects(batch)[3]


def test_a_parquet_column_of_nothing_but_missing_label_times_is_read(tmp_path):
    batch = read(parquet(tmp_path, frame_of(1, 2, label_time=None)), "parquet")
    assert batch.frame["label_time"].isna().all()


# Bad rows


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("transaction_id", "007"),
        ("transaction_id", "1.0"),
        ("transaction_id", "-1"),
        ("transaction_id", "9223372036854775808"),
        ("time", "2026-03-01T12:30:00"),
        ("time", "2026-13-01T12:30:00Z"),
        ("time", "1999-12-31T23:59:59Z"),
        ("time", "2100-01-01T00:00:00Z"),
        ("time", "yesterday"),
        ("customer_id", ""),
        ("merchant_id", "x"),
        ("category", "weapons"),
        ("amount", "nan"),
        ("amount", "inf"),
        ("amount", "-1"),
        ("amount", "0"),
        ("amount", "1000000.01"),
        ("amount", "1,5"),
        ("amount", "1e999"),
        ("distance_km", "-0.1"),
        ("distance_km", "20041"),
        ("device_id", "1e3"),
        ("is_online", "yes"),
        ("is_online", ""),
    ],
)
def test_a_wrong_value_is_a_reject_with_its_row_and_column(tmp_path, column, value):
    bad = line(**{"transaction_id": "2", column: f'"{value}"'})
    batch = read(csv(tmp_path, line(), bad, line(transaction_id="3")))
    assert batch.frame.index.tolist() == [1, 3]
    (row, reason), *_ = rejects(batch).items()
    assert row == 2
    assert reason.startswith(f"{column} is not ")
    assert value == "" or f"{value!r}" not in reason


@pytest.mark.parametrize("value", ["+5", "5.", ".5", "1e3", "1000000"])
def test_numbers_may_be_written_as_programs_write_them(tmp_path, value):
    assert read(csv(tmp_path, line(amount=value))).frame.loc[1, "amount"] == float(value)


def test_the_largest_id_is_one(tmp_path):
    largest = "9223372036854775807"
    assert read(csv(tmp_path, line(device_id=largest))).frame.loc[1, "device_id"] == int(largest)


def test_rows_of_another_width_keep_the_numbers_of_all_others_right(tmp_path):
    batch = read(csv(tmp_path, line(), "1,2", line(amount="x"), f"{line()},more"))
    assert {row: reason.partition(" is not")[0] for row, reason in rejects(batch).items()} == {
        2: "the row has another number of fields than the header",
        3: "amount",
        4: "the row has another number of fields than the header",
    }


def test_of_rows_with_one_id_the_first_is_scored_wherever_they_stand(tmp_path):
    path = csv(tmp_path, line(), line(amount="x"), line(), line(transaction_id="9"))
    batch = read(path)
    assert batch.frame.index.tolist() == [1, 4]
    assert list(rejects(batch)) == [2, 3]
    assert "earlier row" in rejects(batch)[3]


def test_missing_values_and_negative_ids_of_a_parquet_are_rejects(tmp_path):
    frame = frame_of(1, 2, 3, 4).astype({"customer_id": "Int64", "is_online": "boolean"})
    frame.loc[0, "customer_id"] = pd.NA
    frame.loc[1, "merchant_id"] = -1
    frame.loc[2, "amount"] = np.nan
    frame.loc[3, "is_online"] = pd.NA
    assert [
        reason.partition(" ")[0]
        for reason in rejects(read(parquet(tmp_path, frame), "parquet")).values()
    ] == [
        "customer_id",
        "merchant_id",
        "amount",
        "is_online",
    ]


def test_unsigned_ids_too_large_for_us_are_rejects(tmp_path):
    frame = frame_of(1, 2, device_id=np.array([2**64 - 1, 5], dtype="uint64"))
    assert list(rejects(read(parquet(tmp_path, frame), "parquet"))) == [1]


def test_only_so_many_rejects_are_told_and_all_are_counted(tmp_path):
    batch = read(csv(tmp_path, *[line(amount="x")] * 20))
    count, told = batch.bad_between(5, 16, 3)
    assert (count, [one.row for one in told]) == (11, [5, 6, 7])


def test_very_many_bad_rows_are_counted_in_little_memory(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(f"{HEADER}\n".encode() + b"1,2\n" * 200_000)
    batch = read(path, max_rows=200_000)
    assert batch.rows == len(batch.bad) == 200_000
    assert batch.bad.nbytes + batch.rule.nbytes <= 2_000_000


def test_every_rule_says_what_it_wants():
    assert all(reason_of(number) for number in range(1, len(KNOWN) + 3))


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no column names"),
        ("\n\n", "no column names"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\n{line()}\n" + '"never closed', "a quote is broken, in line 3"),
        (f"{HEADER}\n" + '"' + "x" * 200_000 + '"', "a quote is broken"),
        (f"{HEADER}\n" + "x" * (1 << 20), "a line has 1,048,576 characters"),
        (f"{HEADER},amount\n{line()},1", "more than one column is called amount"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, said):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(UnreadableFileError, match=said):
        read(path)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_column_is_named(tmp_path, name, transactions):
    lacking = [one for one in GOOD if one != name]
    with pytest.raises(MissingColumnsError) as missing:
        read(csv(tmp_path, header=",".join(lacking)))
    assert missing.value.columns == (name,)
    with pytest.raises(MissingColumnsError):
        read(parquet(tmp_path, transactions.drop(columns=name)), "parquet")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("transaction_id", [1.5]),
        ("amount", [True]),
        ("is_online", [1]),
        ("category", [1]),
        ("category", pd.Categorical([1])),
        ("time", [pd.Timestamp("2026-03-01")]),
        ("label_time", [5]),
    ],
)
def test_a_parquet_column_of_a_type_that_cannot_be_meant_is_refused(tmp_path, column, values):
    with pytest.raises(ColumnTypeError) as wrong:
        read(parquet(tmp_path, frame_of(1, **{column: values})), "parquet")
    assert wrong.value.column == column


@pytest.mark.parametrize("column", ["amount", "time", "customer_id", "is_online"])
def test_text_where_a_parquet_should_have_numbers_is_refused(tmp_path, column):
    with pytest.raises(ColumnTypeError, match="fixed width"):
        read(parquet(tmp_path, frame_of(1, **{column: ["2.5"]})), "parquet")


@pytest.mark.parametrize("kept", [4, 100, -30])
def test_a_damaged_parquet_is_refused(tmp_path, parquet_file, kept):
    path = tmp_path / "cut.parquet"
    path.write_bytes(parquet_file.read_bytes()[:kept])
    with pytest.raises(UnreadableFileError):
        read(path, "parquet")


def test_too_many_rows_are_refused_in_both_formats(tmp_path, parquet_file):
    with pytest.raises(TooManyRowsError) as many:
        read(parquet_file, "parquet", max_rows=999)
    assert many.value.limit == 999
    with pytest.raises(TooManyRowsError):
        read(csv(tmp_path, *[line()] * 11), max_rows=10)


def test_a_parquet_that_unpacks_to_far_more_than_its_rows_need_is_refused(tmp_path):
    bomb = frame_of(1, category=["x" * (80 << 20)])
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.Table.from_pandas(bomb), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(TooManyRowsError, match="decompressed"):
        read(path, "parquet")


def test_one_long_word_in_a_million_rows_is_kept_once(tmp_path):
    word = "x" * 100_000
    frame = frame_of(*range(20_000), category=pd.Categorical.from_codes([0] * 20_000, [word]))
    path = parquet(tmp_path, frame)
    assert len(rejects(read(path, "parquet", max_rows=20_000))) == 1000


# One rule book


JSON_VALUES = {
    "transaction_id": st.integers(-(2**64), 2**64),
    "amount": st.one_of(st.floats(-10, 2e6), st.sampled_from([0.0, 1e6, 1e6 + 1e-3, 1e-300])),
    "distance_km": st.one_of(st.floats(-10, 3e4), st.sampled_from([0.0, 20_040.0, 20_040.1])),
    "category": st.sampled_from(["fuel", "travel", "Fuel", "", "weapons"]),
    "time": st.one_of(
        st.datetimes(datetime(1995, 1, 1), datetime(2105, 1, 1), timezones=st.just(UTC)).map(
            datetime.isoformat
        ),
        st.sampled_from(
            [
                "2026-03-01T12:30:00",
                "2026-03-01",
                "2026-02-30T00:00:00Z",
                "2026-03-01T25:00:00Z",
                "2026-03-01T12:30:00+02:00",
                "2026-03-01T12:30:00.123456789Z",
                "1772368200",
                "2100-01-01T00:30:00+01:00",
            ]
        ),
    ),
    "is_online": st.booleans(),
}


@settings(max_examples=80, deadline=None)
@given(st.fixed_dictionaries(JSON_VALUES))
@example(
    {
        "transaction_id": 2**63 - 1,
        "amount": 1e6,
        "distance_km": 20_040.0,
        "category": "fuel",
        "time": "2099-12-31T23:59:59.999999Z",
        "is_online": True,
    }
)
def test_a_row_is_good_exactly_where_the_same_request_would_be(values):
    request = {"customer_id": 1, "merchant_id": 2, "device_id": 3, **values}
    try:
        TransactionIn.model_validate_json(json.dumps(request))
        fits = True
    except ValidationError:
        fits = False
    text = {
        name: pa.array([value if isinstance(value, str) else json.dumps(value)])
        for name, value in request.items()
    }
    checked = check(text)
    assert bool(checked.rule[0] == 0) == fits
