"""`companion score FILE`: what a person types, reads and gets, and what an interruption leaves."""

import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import companion.cli
from companion.cli import scoring
from companion.cli.errors import CommandError
from companion.transactions import simulate

THEIRS = {
    "transaction_id": "tx",
    "time": "ts",
    "customer_id": "card",
    "merchant_id": "shop",
    "amount": "amt_cents",
    "is_fraud": "chargeback",
}
COLUMNS = ",".join(f"{ours}={theirs}" for ours, theirs in THEIRS.items())
HOW = ["--columns", COLUMNS, "--timezone", "Europe/Berlin", "--unit", "cent"]
HOW += ["--ambiguous", "earlier"]
EVIL = '<script>alert("c")</script>'


@pytest.fixture(scope="module")
def foreign():
    table = simulate(5000, seed=21).rename(columns=THEIRS)
    table["ts"] = table["ts"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None)
    table["amt_cents"] = (table["amt_cents"] * 100).round().astype("int64")
    table["card"] = EVIL + table["card"].astype("str")
    return table[[*THEIRS.values(), "distance_km", "is_online"]]


@pytest.fixture
def place(tmp_path, monkeypatch, foreign):
    """A folder with the file `pay.csv`, in which commands run."""
    foreign.to_csv(tmp_path / "pay.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(companion.cli.app, ["score", *map(str, arguments)])


def refused(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, CommandError), done.exception
    return str(done.exception)


class Page(HTMLParser):
    """What a browser would find: tags, attributes, text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.links, self.texts = [], [], [], []
        self.feed(Path(path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        self.links += [values[name] for name in ("href", "src") if name in values]

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def done(tmp_path_factory, foreign):
    """One run on a labelled file, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("done")
    foreign.to_csv(folder / "pay.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run("pay.csv", *HOW, "--budget", "0.02"), folder


def test_scores_and_report_are_named_after_the_file(done):
    result, folder = done
    assert result.exit_code == 0, result.exception
    assert {path.name for path in folder.iterdir()} == {
        *("pay.csv", "pay.scores.parquet", "pay.report.html"),
    }


def test_the_command_says_how_good_it_is_what_is_missing_and_where_it_wrote(done):
    said = done[0].stdout
    assert re.search(r"average precision 0\.\d+ \[0\.\d+, 0\.\d+\] at a base rate of 0\.0\d+", said)
    assert "Not made, since columns are missing: is_new_device." in said
    assert "5,000 scores, 30 alerts with reasons: pay.scores.parquet" in said
    assert "The report: pay.report.html" in said


def test_every_stage_has_its_bar(done):
    for words in scoring.STAGES.values():
        assert words in done[0].stderr


def test_scores_stand_beside_the_ids_of_the_file(done, foreign):
    scores = pd.read_parquet(done[1] / "pay.scores.parquet")
    assert scores["customer_id"].tolist() == foreign["card"].tolist()
    assert scores["transaction_id"].tolist() == foreign["tx"].tolist()
    assert (scores["alert"] > 0).sum() == 30


def test_the_report_stands_alone_and_runs_nothing(done):
    page = Page(done[1] / "pay.report.html")
    assert "script" not in page.tags, "an id from the file must not become a tag"
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert EVIL in page.text


def test_the_pictures_of_the_report_have_words(done):
    page = Page(done[1] / "pay.report.html")
    assert [image["alt"].split()[0] for image in page.images] == ["Histogram", "Bars"]


def test_the_report_says_what_was_read_and_missing_and_how_good_it_is(done):
    text = Page(done[1] / "pay.report.html").text
    for words in (
        "probabilities learned from this file's own past",
        "Scores of rows that it was trained on flatter it",
        "time ← ts",
        "Columns missing category, device_id, label_time",
        "Average precision",
        "the base rate",
        "The 20 most suspicious",
        "is_new_device was not made: it needs device_id, which was not read",
    ):
        assert words in text, words


@pytest.mark.browser
def test_the_report_shows_in_a_browser(done, chromium):
    page = chromium.new_page(viewport={"width": 1000, "height": 1400})
    page.goto((done[1] / "pay.report.html").as_uri())
    assert page.title() == "Scores of pay.csv"
    widths = page.eval_on_selector_all("img", "them => them.map(it => it.naturalWidth)")
    assert len(widths) == 2
    assert all(width > 500 for width in widths)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    assert page.locator("tbody tr").count() >= 20


def test_without_labels_output_and_report_say_that_it_is_a_rank(place):
    done = run(
        "pay.csv",
        *HOW[:1],
        COLUMNS.replace("chargeback", ""),
        *HOW[2:],
        "--output",
        "s.csv",
        "--report",
        "r.html",
    )
    assert done.exit_code == 0, done.exception
    assert "they are no probabilities of this file" in done.stdout
    assert "These scores are an order, not probabilities." in Page("r.html").text
    assert "0.8 does not mean" in Page("r.html").text
    scores = pd.read_csv("s.csv")
    assert set(scores["score_means"]) == {"rank only: simulated world, not calibrated"}


def saved(place, days, labelled=True):
    """A saved model, trained on the `days` days before the file's first one, and `pay.csv`."""
    from companion.features.defaults import feature_table
    from companion.models.artefact_metadata import TrainingRecord
    from companion.models.artefacts import save_artefact
    from companion.models.families import make_boosting

    table = simulate(3000, seed=22)
    names = ("log_amount", "customer_count_1d", "hour_sin")
    X = feature_table(table, names)
    first = table["time"].iloc[0].to_pydatetime()
    record = TrainingRecord("boosting", "small", (first, first + pd.Timedelta(days=days)), 0, {})
    model = make_boosting(seed=0, rounds=10).fit(X, table["is_fraud"])
    save_artefact(place / "model", model, X.iloc[:100], record)
    return place / "model"


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (30, "rows are from the days up to"),
        (300, "All rows are from the days up to"),
    ],
)
def test_a_saved_model_scores_and_the_report_says_what_it_has_seen(place, days, said):
    done = run("pay.csv", *HOW, "--model", saved(place, days))
    assert done.exit_code == 0, done.exception
    text = Page("pay.report.html").text
    assert "probabilities of the saved model model" in text
    assert said in text
    assert ("How good they are" in text) == (days == 30)
    assert ("no labelled rows tell how good" in done.stdout) == (days == 300)


def test_a_long_time_is_shown_by_week(place, foreign):
    foreign.assign(ts=pd.date_range("2020-01-01", periods=len(foreign), freq="3h")).to_csv(
        "pay.csv", index=False
    )
    assert run("pay.csv", *HOW, "--timezone", "UTC").exit_code == 0
    assert "Bars of alerts a week" in Page("pay.report.html").images[1]["alt"]


def test_the_help_names_the_columns_that_are_ours():
    said = " ".join(run("--help").stdout.split())
    assert all(name in said for name in (*THEIRS, "device_id", "label_time"))


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "time"], "--columns: 'time' is no pair: write ours=theirs"),
        (["--columns", "time=a,time=b"], "--columns: time is given twice"),
        (["--unit", "dollar"], "--unit: 'dollar' is neither euro, nor cent, nor a number"),
        (["--budget", "0"], "--budget is a share of the rows"),
        (["--output", "scores.xlsx"], "scores are written to .parquet or .csv"),
        (["--output", "x.csv", "--report", "x.csv"], "cannot be one file"),
        (["--output", "pay.csv"], "pay.csv is the file to be scored; it is not overwritten"),
        (["--report", "nowhere/r.html"], "The folder nowhere does not exist"),
        (["--report", "."], ". is a folder: name a file in it"),
        (["--model", "nowhere"], "There is no model in nowhere"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_sentence(place, arguments, words):
    assert words in refused("pay.csv", *arguments)
    assert {path.name for path in place.iterdir()} == {"pay.csv"}


def test_a_mistyped_column_is_answered_in_the_language_of_options(place):
    said = refused("pay.csv", *HOW[:1], COLUMNS.replace("amt_cents", "amt_cent"), *HOW[2:])
    assert said.startswith("pay.csv: there is no column 'amt_cent' (did you mean 'amt_cents'?)")
    assert said.endswith("say which is which with --columns time=THEIRS,…")


def test_a_missing_zone_is_answered_in_the_language_of_options(place):
    said = refused("pay.csv", *HOW[:2])
    assert "column 'ts' (our time): 5,000 rows with a local time and no zone" in said
    assert "as in --timezone Europe/Berlin or --timezone UTC" in said


def test_a_value_with_spaces_is_quoted_for_the_shell():
    assert scoring.in_options("say time_format='%d.%m %H'") == "say --time-format '%d.%m %H'"


def test_a_file_without_a_past_says_what_else_can_be_done(place, foreign):
    foreign.assign(chargeback=False).to_csv("pay.csv", index=False)
    said = refused("pay.csv", *HOW)
    assert "no model can learn from its past" in said
    assert "--model FOLDER" in said
    assert "--columns is_fraud=" in said


def test_a_past_whose_frauds_nobody_had_reported_yet_says_so_too(place, foreign):
    foreign.assign(told="2031-01-01").to_csv("pay.csv", index=False)
    said = refused("pay.csv", *HOW[:1], f"{COLUMNS},label_time=told", *HOW[2:])
    assert "no model can learn from its past" in said


def test_one_customer_alone_gets_no_interval(place, foreign):
    foreign.assign(card="only one").to_csv("pay.csv", index=False)
    done = run("pay.csv", *HOW)
    assert done.exit_code == 0, done.exception
    assert re.search(r"average precision 0\.\d{3} at a base rate", done.stdout)


def test_a_model_that_does_not_fit_is_one_sentence(place):
    (place / "model").mkdir()
    assert "model.onnx" in refused("pay.csv", *HOW, "--model", "model")


def test_several_columns_options_add_up_and_a_number_is_a_unit():
    assert scoring.parse_columns(["time=a=b,amount=c", "device_id="]) == {
        "time": "a=b",
        "amount": "c",
        "device_id": None,
    }
    assert scoring.parse_unit("0.92") == 0.92


# ---- what an interruption leaves


def test_a_failure_in_the_file_leaves_what_was_there(place):
    for name in ("pay.scores.parquet", "pay.report.html"):
        Path(name).write_text("old")
    refused("pay.csv", "--columns", COLUMNS)
    assert Path("pay.scores.parquet").read_text() == "old"
    assert Path("pay.report.html").read_text() == "old"


def test_a_full_disk_leaves_what_was_there_and_says_so(place, monkeypatch):
    Path("pay.scores.parquet").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "Not written: [Errno 28] No space left on device" in refused("pay.csv", *HOW)
    assert Path("pay.scores.parquet").read_text() == "old"
    assert {path.name for path in place.iterdir()} == {"pay.csv", "pay.scores.parquet"}


def test_a_defect_is_no_sentence(place, monkeypatch):
    monkeypatch.setattr("companion.cli.scoring_report.report_html", lambda scored, scores: 1 / 0)
    assert isinstance(run("pay.csv", *HOW).exception, ZeroDivisionError)
    assert {path.name for path in place.iterdir()} == {"pay.csv"}


STOPPED_AT_WORK = """
import signal, sys
from companion.cli import main, scoring

# Whoever runs tests in the background hands down an ignored SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

def wait(*arguments, **options):
    print("at work", flush=True)
    sys.stdin.read()

scoring._scored = wait
sys.argv = ["companion", "score", "pay.csv", *sys.argv[1:]]
main()
"""


def test_ctrl_c_ends_with_status_130_and_writes_nothing(place):
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED_AT_WORK, *HOW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "at work\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.endswith("Stopped; files that were there before are as they were.\n")
    assert "Traceback" not in said
    assert {path.name for path in place.iterdir()} == {"pay.csv"}


KILLED_WHILE_WRITING = """
import json, os, signal, sys
from pathlib import Path
from companion.cli import scoring_report
from companion.cli.scoring import _write
from companion.models.scoring.score import score_file
from companion.transactions.loading import load

columns = dict(pair.split("=") for pair in sys.argv[1].split(","))
loaded = load("pay.csv", columns, timezone="Europe/Berlin", ambiguous="earlier", unit="cent")
scored = score_file(loaded)
scores, page = Path("s.csv").resolve(), Path("r.html").resolve()
STEPS, folder = ("open", "os.rename", "os.chmod"), str(Path.cwd())
html = scoring_report.report_html(scored, scores)
scoring_report.report_html = lambda scored, scores: html  # it is made before anything is written

def write_and_die_at(fatal):
    steps = 0
    def count(event, arguments):
        nonlocal steps
        if event in STEPS and str(arguments[0]).startswith(folder):
            steps += 1
            if steps == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    _write(scored, scores, page, lambda *step: None)
    os._exit(0)

def run_until(fatal):
    scores.write_text("old")
    page.write_text("old")
    child = os.fork()
    if not child:
        write_and_die_at(fatal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

code = run_until(0)
whole = scores.read_bytes(), page.read_bytes()
outcomes = []
for fatal in range(1, 50):
    code = run_until(fatal)
    found = [
        "new" if content == new else content.decode()[:20]
        for content, new in zip((scores.read_bytes(), page.read_bytes()), whole)
    ]
    outcomes.append((code, *found))
    if code == 0:
        break
print(json.dumps({"outcomes": outcomes, "bytes": [len(it) for it in whole]}))
"""


def test_killed_before_any_step_of_writing_each_file_is_old_or_new_and_whole(place):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_WHILE_WRITING, COLUMNS],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)
    states = [tuple(found) for _, *found in told["outcomes"]]
    assert set(states) <= {("old", "old"), ("new", "old"), ("new", "new")}
    assert states[0] == ("old", "old")
    assert states[-1] == ("new", "new")
    assert [code for code, *_ in told["outcomes"][:-1]] == [-signal.SIGKILL] * (len(states) - 1)
    assert len(states) > 5
    assert min(told["bytes"]) > 10_000
    leftovers = {path.name for path in place.iterdir()} - {"pay.csv", "s.csv", "r.html"}
    assert all(name.startswith(".tmp-") for name in leftovers)
