"""Q42 · Optuna's deprecation warnings: the exercise, its checks, and the mistakes they catch."""

import ast
import io
import re
import tokenize
import warnings

import optuna

from companion.study import Exercise, Stage

exercise = Exercise(
    "migrate",
    hints={
        "start": (
            "Begin with the one call of the question: read the source, find the call, write it "
            "again with the new name and one argument more.",
            "ast.parse gives you every call with its place in the text; ast.walk finds them all.",
            "For each ast.Call whose func is an ast.Attribute with an old name: change the name, "
            "add or rename a keyword, and put ast.unparse(call) where the old text stood.",
        ),
        "text": (
            "What goes in is the text of a Python file, and so is what comes out.",
            "Return a str that ast.parse accepts.",
        ),
        "leave-the-rest": (
            "Somebody will read the difference. What did you change that nobody asked for?",
            "ast.unparse of a whole file loses comments, quotes and blank lines. Replace the text "
            "of the calls only.",
            "node.lineno, node.col_offset, node.end_lineno, node.end_col_offset say where a call "
            "stands; work from the last one to the first, so that earlier places stay right.",
        ),
        "keep-log": (
            "The new name alone draws evenly on a linear scale: nine values of ten now fall into "
            "the last decade.",
            "suggest_loguniform(…) becomes suggest_float(…, log=True).",
        ),
        "warning": (
            "A hidden warning is still a call that version 6 will not have.",
            "Rewrite the call. A filter changes what you see, and here not even that: it is a "
            "FutureWarning.",
        ),
        "all-three": (
            "suggest_loguniform has two siblings that end with it.",
            "suggest_uniform becomes suggest_float, suggest_discrete_uniform becomes "
            "suggest_float with step.",
        ),
        "step": (
            "The fourth argument of suggest_discrete_uniform was q. What is it now?",
            "It becomes step, which can only be given by keyword; it may have been written as "
            "q=0.1 or as the fourth argument.",
        ),
        "spellings": (
            "Arguments by keyword, calls over several lines, another name than `trial`: all are "
            "the same call.",
            "A regular expression sees characters. ast.Call sees name, arguments and keywords.",
        ),
        "code-only": (
            "A comment and a string mention the old name. They are not calls.",
            "Decide on ast.Call nodes; text in strings and comments is none.",
        ),
        "nested": (
            "One of these calls stands within another one.",
            "Rewrite the inner call first (NodeTransformer.generic_visit), and replace the text "
            "of the outermost call once.",
        ),
        "bytes": (
            "There is an ü on the line before the call. In which unit does ast count columns?",
            "col_offset counts bytes of UTF-8: cut source.encode(), and decode at the end.",
        ),
    },
)

OLD = ("suggest_uniform", "suggest_loguniform", "suggest_discrete_uniform")


def ran(source, seed):
    """What one trial of the `objective` in `source` draws, and the categories of its warnings."""
    place = {}
    exec(compile(source, "<attempt>", "exec"), place)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        study.optimize(place["objective"], n_trials=1)
    trial = study.trials[0]
    return trial.params, trial.distributions, [w.category.__name__ for w in caught]


def objective_source(*lines):
    return "\n".join(
        ["def objective(trial):", *(f"    {line}" for line in lines), "    return 0.0"]
    )


def migrated(attempt, case, source, hint):
    """The migrated source, which must be a text that parses and holds no old call."""
    new = attempt(source)
    try:
        tree = ast.parse(new)
    except SyntaxError as error:
        case.true(False, given=source, expected="Python", got=f"{error}: {new!r}", hint=hint)
    left = [n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call)
            and isinstance(n.func, ast.Attribute) and n.func.attr in OLD]  # fmt: skip
    case.equal(given=f"{source!r}: old calls left", expected=[], got=left, hint=hint)
    return new


def same_draws(attempt, case, source, hint):
    """Old and new code draw the same values from equal distributions, the new without warnings."""
    seed = int(case.rng.integers(10**6))
    new = migrated(attempt, case, source, hint)
    params, distributions, _ = ran(source, seed)
    try:
        new_params, new_distributions, told = ran(new, seed)
    except Exception as error:
        case.true(False, given=source, expected="it runs", got=f"{new!r}: {error}", hint=hint)
    case.equal(
        given=f"{source!r}: distributions", expected=distributions, got=new_distributions, hint=hint
    )
    case.equal(given=f"{source!r}: values drawn", expected=params, got=new_params, hint=hint)
    case.equal(given=f"{source!r}: warnings", expected=[], got=told, hint=hint)


@exercise.check(Stage.TYPE, hint="text")
def it_gives_source_back(attempt, case):
    """migrate(source) returns a text that is Python"""
    new = attempt("rate = trial.suggest_uniform('rate', 0.0, 0.5)\n")
    case.equal(given="one line of source", expected="str", got=type(new).__name__)
    case.true(_parses(new), given="one line of source", expected="a text that parses", got=new)


def _parses(text):
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@exercise.check(Stage.SHAPE, hint="leave-the-rest")
def code_without_old_calls_stays(attempt, case):
    """source without old calls comes back character by character"""
    source = "def f( x ):   # spaces\n\n\n    return {'a':x,\n            'b' : 1}\n"
    case.equal(given="source that has nothing to migrate", expected=source, got=attempt(source))


@exercise.check(Stage.VALUE, hint="keep-log")
def the_scale_is_kept(attempt, case):
    """suggest_loguniform keeps its log scale"""
    low = float(case.rng.choice([1e-5, 1e-4, 1e-3]))
    source = objective_source(f"lr = trial.suggest_loguniform('lr', {low}, {low * 100})")
    new = attempt(source)
    if "suggest_loguniform" in new:
        case.true(
            False,
            given=source,
            expected="no call that version 6 removes",
            got=new,
            hint="warning" if "filter" in new else "",
        )
    _, distributions, _ = ran(new, 1)
    case.equal(given=f"{source!r}: log", expected=True, got=distributions["lr"].log)
    same_draws(attempt, case, source, "keep-log")


@exercise.check(Stage.VALUE, hint="all-three")
def the_uniform_one_too(attempt, case):
    """suggest_uniform and suggest_discrete_uniform are migrated as well"""
    for old, more in (("suggest_uniform", ""), ("suggest_discrete_uniform", ", 0.25")):
        source = objective_source(f"x = trial.{old}('x', 0.0, 1.0{more})")
        new = attempt(source)
        case.true(old not in new, given=source, expected="the new call", got=new)


@exercise.check(Stage.VALUE, hint="step")
def q_becomes_step(attempt, case):
    """suggest_discrete_uniform keeps its grid: q becomes step"""
    q = float(case.rng.choice([0.1, 0.2, 0.25]))
    for written in (f"{q}", f"q={q}"):
        source = objective_source(f"x = trial.suggest_discrete_uniform('x', 0.0, 1.0, {written})")
        same_draws(attempt, case, source, "step")


@exercise.check(Stage.VALUE, hint="spellings")
def every_spelling_is_found(attempt, case):
    """keywords, several lines and other names than trial make no difference"""
    for source in (
        objective_source("x = trial.suggest_loguniform(name='x', low=1e-4, high=1e-2)"),
        objective_source("x = trial.suggest_loguniform('x', high=1e-2, low=1e-4)"),
        objective_source(
            "x = trial.suggest_loguniform(", "    'x',", "    1e-4,", "    1e-2,", ")"
        ),
        objective_source("t = trial", "x = (t).suggest_uniform ('x', -1.0, max(1.0, 2.0))"),
    ):
        same_draws(attempt, case, source, "spellings")


@exercise.check(Stage.VALUE, hint="code-only")
def words_are_not_calls(attempt, case):
    """comments and strings that mention the old names stay as they are"""
    note = "# trial.suggest_loguniform('x', 1, 2) was here"
    words = "'trial.suggest_uniform(0, 1)'"
    source = objective_source(note, f"words = {words}", "x = trial.suggest_uniform('x', 0, 1)")
    new = migrated(attempt, case, source, "code-only")
    for kept, hint in ((words, "code-only"), (note, "leave-the-rest")):
        if kept not in new:
            gone = "suggest" not in new.partition(kept[:3])[2].partition("\n")[0]
            case.true(
                False, given=source, expected=kept, got=new, hint="leave-the-rest" if gone else hint
            )


@exercise.check(Stage.VALUE, hint="leave-the-rest")
def the_rest_of_the_file_stays(attempt, case):
    """everything beside the calls keeps its text: comments, quotes, blank lines"""
    number = int(case.rng.integers(100))
    before, after = f"N  =  {number}  # trials\n\n\n", '  # a rate\n\n\nprint( "done" )\n'
    new = attempt(f"{before}x = trial.suggest_uniform('x', 0, 1){after}")
    case.true(
        new.startswith(before + "x = ") and new.endswith(after),
        given="a file with comments, spaces and blank lines around one call",
        expected="the same text around the call",
        got=new,
    )


@exercise.check(Stage.STRESS, hint="nested")
def calls_within_calls(attempt, case):
    """a call within a call is migrated too"""
    source = objective_source(
        "x = trial.suggest_uniform('x', 0.0, trial.suggest_loguniform('top', 1.0, 9.0))",
        "y = trial.suggest_loguniform('y', trial.suggest_discrete_uniform('z', 1, 2, 0.5), 9.0)",
    )
    same_draws(attempt, case, source, "nested")


@exercise.check(Stage.STRESS, hint="bytes")
def other_alphabets(attempt, case):
    """letters beyond ASCII before a call do not shift it"""
    source = objective_source("größe, x = 'größer ×', trial.suggest_loguniform('x', 1.0, 9.0)")
    same_draws(attempt, case, source, "bytes")


@exercise.part_of_solution
class Modern(ast.NodeTransformer):
    """Old calls to new ones, inner calls first."""

    def visit_Call(self, call):
        self.generic_visit(call)
        old = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if old not in ("suggest_uniform", "suggest_loguniform", "suggest_discrete_uniform"):
            return call
        call.func.attr = "suggest_float"
        if old == "suggest_loguniform":
            call.keywords.append(ast.keyword("log", ast.Constant(True)))
        if old == "suggest_discrete_uniform":
            if len(call.args) == 4:
                call.keywords.append(ast.keyword("q", call.args.pop()))
            for keyword in call.keywords:
                keyword.arg = "step" if keyword.arg == "q" else keyword.arg
        self.replaced.append(call)
        return call


@exercise.solution
def migrate(source):
    modern = Modern()
    modern.replaced = []
    modern.visit(ast.parse(source))
    lines = source.encode().splitlines(keepends=True)
    begins = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]

    def place(call):
        return (
            begins[call.lineno - 1] + call.col_offset,
            begins[call.end_lineno - 1] + call.end_col_offset,
        )

    text = source.encode()
    done_from = len(text) + 1
    for call in sorted(modern.replaced, key=lambda call: (-place(call)[1], place(call)[0])):
        start, end = place(call)
        if end <= done_from:  # an inner call went with the outer one
            text = text[:start] + ast.unparse(call).encode() + text[end:]
            done_from = start
    return text.decode()


@exercise.another_way
def migrate_by_tokens(source):
    """Never builds a tree: follows the brackets, renames, and adds what the new call wants."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    edits, open_brackets = [], []
    for i, token in enumerate(tokens):
        text = token.string
        if open_brackets and token.type == tokenize.NAME and text == "q":
            call = open_brackets[-1]
            if call["old"] == "suggest_discrete_uniform" and tokens[i + 1].string == "=":
                edits.append((token.start, token.end, "step"))
        if text in OLD and tokens[i - 1].string == "." and tokens[i + 1].string == "(":
            edits.append((token.start, token.end, "suggest_float"))
        if text in "([{" and token.type == tokenize.OP:
            old = tokens[i - 1].string if tokens[i - 1].string in OLD else ""
            open_brackets.append({"old": old, "commas": 0})
        elif text in ")]}" and token.type == tokenize.OP:
            call = open_brackets.pop()
            if call["old"] == "suggest_loguniform":
                last = max(j for j in range(i) if tokens[j].string.strip()
                           and tokens[j].type != tokenize.COMMENT)  # fmt: skip
                comma = "" if tokens[last].string == "," else ","
                edits.append((tokens[last].end, tokens[last].end, f"{comma} log=True"))
        elif text == "," and open_brackets:
            call = open_brackets[-1]
            call["commas"] += 1
            following = tokens[i + 1]
            by_position = tokens[i + 2].string != "="
            if call["old"] == "suggest_discrete_uniform" and call["commas"] == 3 and by_position:
                edits.append((following.start, following.start, "step="))
    lines = source.splitlines(keepends=True)
    for (row, column), (_, end), new in sorted(edits, reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + new + line[end:]
    return "".join(lines)


@exercise.wrong("text")
def gives_the_tree(source):
    """Returns a syntax tree, not the text of a file."""
    return ast.parse(source)


@exercise.wrong("warning")
def silenced(source):
    """Puts a filter in front and leaves the calls: version 6 will not have them."""
    if not any(old in source for old in OLD):
        return source
    quiet = "import warnings\nwarnings.filterwarnings('ignore', category=FutureWarning)\n"
    return quiet + source


@exercise.wrong("keep-log")
def renamed(source):
    """Changes the name and forgets the scale: a linear search from now on."""
    for old in OLD:
        source = source.replace(f".{old}(", ".suggest_float(")
    return source


@exercise.wrong("all-three")
def as_received(source):
    """The received answer's one line: nothing but suggest_loguniform."""
    return re.sub(r"\.suggest_loguniform\(([^()]*)\)", r".suggest_float(\1, log=True)", source)


@exercise.wrong("step")
def q_kept(source):
    """Renames suggest_discrete_uniform and hands q on, which suggest_float does not take."""
    source = re.sub(r"\.suggest_loguniform\(([^()]*)\)", r".suggest_float(\1, log=True)", source)
    return re.sub(r"\.suggest_(discrete_)?uniform\(", ".suggest_float(", source)


@exercise.wrong("spellings")
def by_position_on_one_line(source):
    """A regular expression that knows one spelling: on one line, without keywords."""
    arguments = r"\(('\w+', [^,()=]+, [^,()=]+)"
    source = re.sub(
        rf"trial\.suggest_loguniform{arguments}\)", r"trial.suggest_float(\1, log=True)", source
    )
    source = re.sub(
        rf"trial\.suggest_discrete_uniform{arguments}, (?:q=)?([^,()=]+)\)",
        r"trial.suggest_float(\1, step=\2)",
        source,
    )
    return re.sub(rf"trial\.suggest_uniform{arguments}\)", r"trial.suggest_float(\1)", source)


@exercise.wrong("code-only")
def everywhere(source):
    """Finds the calls with a tree, and then replaces their text wherever else it stands too."""
    for old in OLD:
        source = source.replace(f"'trial.{old}", "'trial.suggest_float")
    return migrate(source)


@exercise.wrong("leave-the-rest")
def the_whole_file_again(source):
    """ast.unparse of everything: right calls, and no comment left in the file."""
    tree = ast.parse(source)
    modern = Modern()
    modern.replaced = []
    tree = modern.visit(tree)
    return ast.unparse(tree) if modern.replaced else source


@exercise.wrong("nested")
def outermost_only(source):
    """Rewrites a call and does not look inside it."""

    class Outer(Modern):
        def generic_visit(self, node):
            return node if isinstance(node, ast.Call) else super().generic_visit(node)

    return _spliced(source, Outer(), len(source.encode()) + 1)


@exercise.wrong("bytes")
def columns_as_characters(source):
    """Takes col_offset for a number of characters."""
    if source.isascii():
        return migrate(source)
    call = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
    lines = source.splitlines(keepends=True)
    line = lines[call.lineno - 1]
    new = "trial.suggest_float('x', 1.0, 9.0, log=True)"
    lines[call.lineno - 1] = line[: call.col_offset] + new + line[call.end_col_offset :]
    return "".join(lines)


def _spliced(source, modern, done_from):
    modern.replaced = []
    modern.visit(ast.parse(source))
    text, lines = source.encode(), source.encode().splitlines(keepends=True)
    begins = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    for call in sorted(modern.replaced, key=lambda call: (-call.end_lineno, -call.end_col_offset)):
        start = begins[call.lineno - 1] + call.col_offset
        end = begins[call.end_lineno - 1] + call.end_col_offset
        text = text[:start] + ast.unparse(call).encode() + text[end:]
    return text.decode()
