"""Progress: a bar for a terminal, one line for everything else."""

import io

from companion.models.tuning import Progress, shown_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_reads_as_a_sentence():
    assert str(Progress(3, 10, 1, 0.61234)) == "3 of 10 trials, 1 pruned, best 0.612"
    assert str(Progress(0, 10, 0, None)) == "0 of 10 trials, 0 pruned"


def test_where_there_is_no_terminal_one_line_is_written_over():
    out = io.StringIO()
    with shown_progress(out) as tell:
        tell(Progress(1, 2, 0, 0.5))
        tell(Progress(2, 2, 0, 0.6))
    lines = out.getvalue().split("\r")
    assert [line.strip() for line in lines] == [
        "",
        "1 of 2 trials, 0 pruned, best 0.500",
        "2 of 2 trials, 0 pruned, best 0.600",
    ]
    assert out.getvalue().endswith("\n")


def test_a_shorter_line_leaves_nothing_of_a_longer_one():
    out = io.StringIO()
    with shown_progress(out) as tell:
        tell(Progress(100, 200, 50, 0.5))
        tell(Progress(0, 2, 0, None))
    first, second = out.getvalue().strip("\r\n").split("\r")
    assert len(second) >= len(first)


def test_a_terminal_gets_a_bar():
    out = Terminal()
    with shown_progress(out) as tell:
        tell(Progress(7, 9, 2, 0.5))
    assert "7/9" in out.getvalue()
    assert "2 pruned, best 0.500" in out.getvalue()


def test_standard_error_is_the_default(capsys):
    with shown_progress() as tell:
        tell(Progress(1, 2, 0, None))
    assert "1 of 2 trials" in capsys.readouterr().err
