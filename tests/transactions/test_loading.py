"""Bring your own transactions: what a foreign file becomes, however it writes what it means."""

import gzip

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from companion.transactions import simulate
from companion.transactions.loading import load
from companion.transactions.loading.errors import OptionError

OURS = [
    *("transaction_id", "time", "customer_id", "merchant_id", "category", "amount"),
    *("distance_km", "device_id", "is_online", "is_fraud", "label_time"),
]
THEIRS = {
    "transaction_id": "Tx",
    "time": "ts",
    "customer_id": "card",
    "merchant_id": "shop",
    "category": "mcc",
    "amount": "amt_cents",
    "distance_km": "far",
    "device_id": "handset",
    "is_online": "ecom",
    "is_fraud": "chargeback",
    "label_time": "reported",
}
BERLIN = "Europe/Berlin"


@pytest.fixture(scope="module")
def simulated():
    return simulate(3000, seed=4)[OURS]


@pytest.fixture(scope="module")
def foreign(simulated):
    """The same transactions as somebody else would keep them, in another order."""
    table = simulated.rename(columns=THEIRS)
    for name in ("ts", "reported"):
        table[name] = table[name].dt.tz_convert(BERLIN).dt.tz_localize(None)
    table["amt_cents"] = (table["amt_cents"] * 100).round().astype("int64")
    table["card"] = "card-" + table["card"].astype("str")
    table["shop"] = "M" + table["shop"].astype("str")
    table["chargeback"] = table["chargeback"].astype("int64")
    table["remark"] = "x, y"
    return table.sample(frac=1, random_state=5).reset_index(drop=True)


def load_foreign(path, **options):
    return load(path, THEIRS, timezone=BERLIN, unit="cent", **options)


@pytest.fixture
def write(tmp_path):
    """Writes lines as a CSV and gives its path."""

    def write(*lines, name="payments.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes("\n".join([*lines, ""]).encode(encoding))
        return path

    return write


HEADER = "time,customer_id,merchant_id,amount"
ROW = "2024-05-31T14:03:22Z,1,2,9.50"


def in_order_of_ids(table):
    return table.sort_values("transaction_id").reset_index(drop=True)


def test_a_table_written_by_us_comes_back_as_it_was(simulated, tmp_path):
    simulated.to_csv(tmp_path / "own.csv", index=False)
    loaded = load(tmp_path / "own.csv")
    assert_frame_equal(
        in_order_of_ids(loaded.table), simulated, check_categorical=False, check_like=False
    )
    assert loaded.missing == ()
    assert loaded.unused == ()


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_other_names_zone_unit_ids_and_order_change_no_value(simulated, foreign, tmp_path, suffix):
    path = tmp_path / f"foreign.{suffix}"
    foreign.to_parquet(path) if suffix == "parquet" else foreign.to_csv(path, index=False)
    loaded = load_foreign(path)
    same = [name for name in OURS if name not in ("customer_id", "merchant_id", "category")]
    found = in_order_of_ids(loaded.table)
    assert_frame_equal(found[same], simulated[same])
    assert found["category"].astype("str").tolist() == simulated["category"].tolist()
    for ours in ("customer_id", "merchant_id"):
        pairs = pd.DataFrame({"theirs": found[ours], "ours": simulated[ours]}).drop_duplicates()
        assert pairs["theirs"].is_unique
        assert pairs["ours"].is_unique
    assert "remark" in loaded.unused


def test_csv_and_parquet_of_the_same_data_load_equally(foreign, tmp_path):
    foreign.to_csv(tmp_path / "a.csv", index=False)
    foreign.to_parquet(tmp_path / "a.parquet")
    from_csv, from_parquet = (load_foreign(tmp_path / f"a.{kind}") for kind in ("csv", "parquet"))
    assert_frame_equal(from_csv.table, from_parquet.table)
    assert_frame_equal(from_csv.ids, from_parquet.ids)


def test_the_order_of_the_file_can_be_had_back(foreign, tmp_path):
    foreign.to_csv(tmp_path / "f.csv", index=False)
    loaded = load_foreign(tmp_path / "f.csv")
    assert loaded.table["time"].is_monotonic_increasing
    returned = loaded.in_file_order(loaded.ids)
    assert returned["customer_id"].tolist() == foreign["card"].tolist()
    assert returned["transaction_id"].tolist() == foreign["Tx"].tolist()


def test_a_frame_of_another_length_has_no_file_order(write):
    with pytest.raises(ValueError, match="0 rows given for a file of 1"):
        load(write(HEADER, ROW)).in_file_order(pd.DataFrame())


def test_what_the_file_lacks_is_named_and_not_made_up(write):
    loaded = load(write(HEADER, ROW))
    assert loaded.missing == (
        *("transaction_id", "category", "distance_km", "device_id", "is_online", "is_fraud"),
        "label_time",
    )
    assert list(loaded.table.columns) == [
        *("transaction_id", "time", "customer_id", "merchant_id", "amount"),
    ]


def test_transactions_without_ids_are_numbered_in_order_of_time(write):
    loaded = load(write(HEADER, "2024-05-31,1,2,9", "2024-05-30,1,2,8"), timezone="UTC")
    assert loaded.table["transaction_id"].tolist() == [0, 1]
    assert loaded.table["amount"].tolist() == [8, 9]
    assert loaded.rows.tolist() == [1, 0]


def test_rows_of_one_instant_keep_the_order_of_the_file(write):
    loaded = load(write(HEADER, *(f"2024-05-31T00:00:00Z,{n},2,9" for n in (3, 1, 2))))
    assert loaded.table["customer_id"].tolist() == [3, 1, 2]


def test_rows_of_one_instant_stand_in_order_of_their_ids(write):
    rows = (f"2024-05-31T00:00:00Z,1,2,9,{n}" for n in (3, 1, 2))
    assert load(write(f"{HEADER},transaction_id", *rows)).rows.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "written",
    [
        "2024-05-31T12:03:22Z",
        "2024-05-31 14:03:22+02:00",
        "2024-05-31T14:03:22.000+0200",
        "2024-05-31 12:03:22 UTC",
        "2024-05-31T12:03:22.000000000Z",
    ],
)
def test_iso_times_with_an_offset_need_no_zone(write, written):
    times = load(write(HEADER, f"{written},1,2,9")).table["time"]
    assert times[0] == pd.Timestamp("2024-05-31T12:03:22Z")
    assert str(times.dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("written", "unit"),
    [
        ("1717157002", "s"),
        ("1717157002000", "ms"),
        ("1717157002000000", "us"),
        ("1717157002000000000", "ns"),
        ("1717157002.0", "s"),
    ],
)
def test_counts_since_1970_are_read_in_the_unit_that_is_stated(write, written, unit):
    times = load(write(HEADER, f"{written},1,2,9"), time_format=unit).table["time"]
    assert times[0] == pd.Timestamp("2024-05-31T12:03:22Z")


def test_counts_may_be_numbers_in_parquet(tmp_path):
    frame = pd.DataFrame(
        {"time": [1717157002, 1717157003], "customer_id": 1, "merchant_id": 2, "amount": 9}
    )
    frame.to_parquet(tmp_path / "n.parquet")
    times = load(tmp_path / "n.parquet", time_format="s").table["time"]
    assert times[0] == pd.Timestamp("2024-05-31T12:03:22Z")


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("31.05.2024 14:03:22", "%d.%m.%Y %H:%M:%S"),
        ("31.05.2024 13:03:22 +0100", "%d.%m.%Y %H:%M:%S %z"),
    ],
)
def test_another_writing_of_times_is_stated_as_a_pattern(write, written, pattern):
    loaded = load(write(HEADER, f"{written},1,2,9"), time_format=pattern, timezone=BERLIN)
    assert loaded.table["time"][0] == pd.Timestamp("2024-05-31T12:03:22Z")


@pytest.mark.parametrize(("ambiguous", "utc_hour"), [("earlier", 0), ("later", 1)])
def test_an_hour_that_ran_twice_is_the_one_that_was_chosen(write, ambiguous, utc_hour):
    path = write(HEADER, "2024-10-27 02:30:00,1,2,9")
    assert load(path, timezone=BERLIN, ambiguous=ambiguous).table["time"][0].hour == utc_hour


def test_parquet_times_keep_their_own_zone(tmp_path):
    moments = pd.to_datetime(["2024-05-31 14:03:22"]).tz_localize(BERLIN)
    frame = pd.DataFrame({"time": moments, "customer_id": 1, "merchant_id": 2, "amount": 9.0})
    frame.to_parquet(tmp_path / "z.parquet")
    times = load(tmp_path / "z.parquet", timezone="America/New_York").table["time"]
    assert times[0] == pd.Timestamp("2024-05-31T12:03:22Z")


@pytest.mark.parametrize(
    ("unit", "written", "euros"),
    [("euro", "12.34", 12.34), ("cent", "1234", 12.34), (0.5, "10", 5.0), ("cent", "29", 0.29)],
)
def test_amounts_become_euros(write, unit, written, euros):
    path = write(HEADER, f"2024-05-31T00:00:00Z,1,2,{written}")
    assert load(path, unit=unit).table["amount"][0] == euros


def test_a_decimal_comma_is_read_where_it_is_stated(write):
    path = write(HEADER.replace(",", ";"), "2024-05-31T00:00:00Z;1;2;12,50")
    assert load(path, decimal=",").table["amount"][0] == 12.5


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(write, delimiter):
    lines = (line.replace(",", delimiter) for line in (HEADER, ROW))
    assert load(write(*lines)).table["amount"][0] == 9.5


def test_any_other_delimiter_is_stated(write):
    lines = (line.replace(",", "~") for line in (HEADER, ROW))
    assert load(write(*lines), delimiter="~").table["amount"][0] == 9.5


@pytest.mark.parametrize(
    ("written", "known"), [("1", True), ("0", False), ("TRUE", True), ("false", False), ("1.0", 1)]
)
def test_labels_are_0_and_1_or_false_and_true(write, written, known):
    assert load(write(f"{HEADER},is_fraud", f"{ROW},{written}")).table["is_fraud"][0] == known


def test_ids_that_are_whole_numbers_stand_for_themselves(write):
    loaded = load(write(HEADER, ROW.replace(",1,2,", ",17,-4,")))
    assert loaded.table["customer_id"].tolist() == [17]
    assert loaded.ids["merchant_id"].tolist() == [-4]


@pytest.mark.parametrize("odd", ["007", "99999999999999999999", "1.5", "+3"])
def test_ids_that_int64_would_not_write_again_are_kept_as_text(write, odd):
    loaded = load(write(HEADER, ROW, ROW.replace(",1,2,", f",{odd},2,")))
    assert sorted(loaded.ids["customer_id"]) == sorted(["1", odd])
    assert sorted(loaded.table["customer_id"]) == [0, 1]


def test_parquet_ids_may_be_whole_floats_categories_and_text(tmp_path):
    frame = pd.DataFrame(
        {
            "time": pd.to_datetime(["2024-05-31", "2024-06-01"], utc=True),
            "customer_id": [7.0, 8.0],
            "merchant_id": pd.Categorical(["b", "a"]),
            "amount": [1.0, 2.0],
            "device_id": ["11", "12"],
        }
    )
    frame.to_parquet(tmp_path / "i.parquet")
    loaded = load(tmp_path / "i.parquet")
    assert loaded.table[["customer_id", "merchant_id", "device_id"]].to_numpy().tolist() == [
        [7, 1, 11],
        [8, 0, 12],
    ]
    assert loaded.ids["device_id"].tolist() == ["11", "12"], "the file says that they are text"


def test_a_category_may_have_gaps(write):
    loaded = load(write(f"{HEADER},category", f"{ROW},books", f"{ROW},", f"{ROW},NULL"))
    assert loaded.table["category"].isna().tolist() == [False, True, True]
    assert loaded.table["category"].cat.categories.tolist() == ["books"]


def test_a_label_need_not_have_been_reported(write):
    header = f"{HEADER},is_fraud,label_time"
    loaded = load(write(header, f"{ROW},1,2024-06-10T00:00:00Z", f"{ROW},0,", f"{ROW},1,NaT"))
    assert loaded.table["label_time"].isna().tolist() == [False, True, True]


def test_a_column_of_gaps_is_a_column_of_labels_never_reported(write):
    loaded = load(write(f"{HEADER},is_fraud,label_time", f"{ROW},0,"))
    assert str(loaded.table["label_time"].dtype) == "datetime64[us, UTC]"
    assert loaded.table["label_time"].isna().all()


def test_a_column_of_our_name_can_be_left_out(write):
    loaded = load(write(f"{HEADER},device_id", f"{ROW},"), {"device_id": None})
    assert "device_id" in loaded.missing
    assert loaded.unused == ("device_id",)


def test_a_column_given_to_another_name_is_not_read_under_its_own(write):
    path = write("time,merchant_id,customer_id,amount,device_id", "2024-05-31T00:00:00Z,2,1,9,5")
    loaded = load(path, {"customer_id": "device_id"})
    assert loaded.table["customer_id"].tolist() == [5]
    assert "device_id" in loaded.missing


def test_label_times_without_labels_are_left_unused(write):
    loaded = load(write(f"{HEADER},label_time", f"{ROW},2024-06-10T00:00:00Z"))
    assert loaded.unused == ("label_time",)


def test_spaces_empty_lines_quotes_and_a_byte_order_mark_do_no_harm(write):
    path = write(
        "\ufefftime,customer_id,merchant_id,amount,note",
        '2024-05-31T00:00:00Z, a b ,2," 9.50","one',
        'two"',
        "",
        "2024-05-31T00:00:01Z,c,2,7,",
    )
    loaded = load(path)
    assert loaded.ids["customer_id"].tolist() == ["a b", "c"]
    assert loaded.table["amount"].tolist() == [9.5, 7]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_read_where_it_is_stated(write, encoding):
    path = write(HEADER, ROW.replace(",1,", ",Jürgen,"), encoding=encoding)
    assert load(path, encoding=encoding).ids["customer_id"].tolist() == ["Jürgen"]


def test_the_first_bytes_say_what_a_file_is_and_not_its_name(foreign, tmp_path):
    foreign.to_parquet(tmp_path / "export.dat")
    (tmp_path / "plain").write_bytes(gzip.compress(f"{HEADER}\n{ROW}\n".encode()))
    assert len(load_foreign(tmp_path / "export.dat").table) == len(foreign)
    assert len(load(tmp_path / "plain").table) == 1


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_reading_tells_how_far_it_is(foreign, tmp_path, suffix):
    path = tmp_path / f"foreign.{suffix}"
    foreign.to_parquet(path) if suffix == "parquet" else foreign.to_csv(path, index=False)
    told = []
    load_foreign(path, on_read=lambda rows, share: told.append((rows, share)))
    assert told == sorted(told)
    assert told[-1][0] == len(foreign)
    assert 0.5 < told[-1][1] <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"amonut": "x"}}, r"no column 'amonut' here \(did you mean 'amount'\?\)"),
        ({"timezone": "Europe/Berlni"}, r"no time zone 'Europe/Berlni' \(did you mean 'Europe/B"),
        ({"time_format": "seconds"}, "time_format='seconds': it is 's', 'ms'"),
        ({"time_format": "%d.%Q"}, "time_format='%d.%Q'"),
        ({"ambiguous": "first"}, "ambiguous='first': it is 'refuse', 'earlier' or 'later'"),
        ({"unit": "dollar"}, "unit='dollar'"),
        ({"unit": -1.0}, "unit=-1.0"),
        ({"unit": float("nan")}, "unit=nan"),
        ({"decimal": ";"}, "decimal=';'"),
        ({"delimiter": ",,"}, "delimiter=',,'"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(write, options, words):
    with pytest.raises(OptionError, match=words):
        load(write(HEADER, ROW), **options)


def test_millions_of_rows_can_share_few_ids(tmp_path):
    rows = 300_000  # more than one batch and one block
    frame = pd.DataFrame(
        {
            "time": pd.Timestamp("2024-05-31", tz="UTC") + pd.to_timedelta(np.arange(rows), "s"),
            "customer_id": np.char.add("k", (np.arange(rows) % 7).astype("str")),
            "merchant_id": 1,
            "amount": 1.0,
        }
    )
    for name in ("big.csv", "big.parquet"):
        frame.to_csv(tmp_path / name, index=False) if name.endswith("csv") else frame.to_parquet(
            tmp_path / name
        )
        loaded = load(tmp_path / name)
        assert loaded.table["customer_id"].tolist() == (np.arange(rows) % 7).tolist()
