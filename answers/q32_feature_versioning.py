"""Q32 · Feature versioning: the exercise, its checks, and the mistakes they catch."""

import io
import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from companion.study import Exercise, Stage

exercise = Exercise(
    "FeatureStore",
    hints={
        "start": (
            'Write `save` and `load` for a version that is named, and leave "latest" for later.',
            "Give each version a folder of its own, with the table and a small JSON file in it.",
            "folder/version/data.parquet and folder/version/meta.json; `load` reads the first, and "
            'later finds in the second what "latest" needs.',
        ),
        "round-trip": (
            "load gives back the DataFrame alone, equal to what was saved: values, types, order.",
            "A file format that knows types does that by itself: `to_parquet`, `pd.read_parquet`.",
        ),
        "on-disk": (
            "Tomorrow's job makes a new FeatureStore on the same folder. What does it know?",
            "Keep nothing in attributes that `load` needs; everything it needs lies in the folder.",
        ),
        "own-names": (
            "Does your `load` understand the names that your own `save` makes?",
            "Do not cut a version out of a file name again. What was joined with '_' cannot be "
            "split there once the version contains a '_' too.",
            "Give a version a folder whose name is the version and nothing else.",
        ),
        "names": (
            "A version becomes part of a path. Which path is folder / '../x'?",
            "Say which names are allowed, rather than which are not, in save and in load alike.",
            're.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", version) or ValueError. fullmatch, since '
            '`$` also matches before a final line break; and "latest" is taken.',
        ),
        "creation": (
            "Sorted as text, which is larger: 'v9' or 'v10'?",
            "The latest is the version that was created last. Write down, with each version, what "
            "tells you that.",
        ),
        "order": (
            "Which clock did you trust? Clocks are set back, and a restore touches files.",
            "An order needs no time. Number the versions as you save them.",
            "number = largest number saved so far + 1, kept in the version's own metadata.",
        ),
        "unique": (
            "Three saves in the same instant. What makes their names differ?",
            "Put something into the default name that no other save has: its number, for instance.",
        ),
        "immutable": (
            "Somebody trained on this version. What do they load next month?",
            "A name that exists is refused with FileExistsError, before anything is written.",
        ),
        "schema": (
            "Your metadata knows the schema. Who compares it?",
            "Compare names, types and order. Two dicts are equal whatever the order of their keys.",
            "list(expected.items()) != list(found.items()) → ValueError, where found is "
            "{name: str(dtype) for name, dtype in df.dtypes.items()}.",
        ),
        "crash": (
            "Stop your save between any two of its steps. What does a reader find in the folder?",
            "Write under a name that no reader looks at. When everything is written, one rename "
            "makes it visible, and that is the only step that does.",
            'staged = tempfile.mkdtemp(prefix=".", dir=folder); write both files there; '
            "os.rename(staged, folder / version). `load` skips names that begin with a dot.",
        ),
        "leftovers": (
            "The crash left something behind. Does your next save stumble over it?",
            "Use a new temporary name for every save (tempfile.mkdtemp), and never count on a "
            "clean-up: a process that was killed does none.",
        ),
    },
)


class Calendar:
    """A clock with a date that moves only when told to, backwards too."""

    def __init__(self):
        self.now = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)

    def __call__(self):
        return self.now

    def move(self, **amount):
        self.now += timedelta(**amount)


class Killed(BaseException):
    """The process ends here; what it would have done next, clean-up included, is not done."""


class Faults:
    """Stops what touches `folder` at a chosen step, by an audit hook of this (forked) process.

    `killed`: the step and all after it do not happen. `disk full`: they do, but no file takes one
    more byte. What lies in the folder then is also what another process would have read there.
    """

    def __init__(self):
        self.folder, self.kind, self.left, self.struck = None, "", 0, ""
        sys.addaudithook(self._on_event)

    @contextmanager
    def at(self, step, kind, folder):
        self.folder, self.kind, self.left, self.struck = str(folder), kind, step, ""
        try:
            yield
        except (Exception, Killed) as error:
            if isinstance(error, NotImplementedError):
                raise
        finally:
            self.folder = None
            if kind == "disk full":
                _limit_file_size(None)

    def _on_event(self, event, args):
        if self.folder is None or not _changes_files(event, args):
            return
        texts = [str(arg) for arg in args if isinstance(arg, str | Path)]
        paths = [text for text in texts if text.startswith(self.folder)]
        if not paths:
            return
        self.left -= 1
        if self.left > 0:
            return
        self.struck = self.struck or f"{event} {Path(paths[-1]).name}"
        if self.kind == "killed":
            raise Killed
        _limit_file_size(0)


def _changes_files(event, args):
    if event == "open":
        return bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in {
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
    }


def _limit_file_size(most):
    import resource  # POSIX only, as is the kind of fault that needs it

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if most is None else most, hard))


@contextmanager
def new_folder():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def tables(case, count):
    """Different small tables with the same columns and types."""
    made = []
    for number in range(count):
        rows = int(case.rng.integers(5, 40)) + 40 * number
        made.append(
            pd.DataFrame(
                {
                    "amount": case.rng.lognormal(3, 1, rows),
                    "hour": case.rng.integers(0, 24, rows),
                    "category": pd.Categorical(case.rng.choice(["fuel", "travel", "food"], rows)),
                    "time": pd.Timestamp("2026-01-05", tz="UTC")
                    + pd.to_timedelta(case.rng.integers(0, 10**6, rows), unit="s").as_unit("us"),
                    "is_online": case.rng.random(rows) < 0.3,
                }
            )
        )
    return made


def schema_of(frame):
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def loaded(store, saved, *version):
    """Which of the `saved` tables a load gives back, by its name, or how it failed."""
    try:
        got = store.load(*version)
    except NotImplementedError:
        raise
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"
    for name, frame in saved.items():
        if isinstance(got, pd.DataFrame) and frame.equals(got):
            return f"the table saved as {name}"
    return f"none of the saved tables, but {type(got).__name__} {getattr(got, 'shape', '')}"


@exercise.check(Stage.TYPE, hint="round-trip")
def it_comes_back(attempt, case):
    """save returns the version's name, and load of that name gives back an equal table"""
    with new_folder() as folder:
        (frame,) = tables(case, 1)
        store = attempt(folder, clock=Calendar())
        version = store.save(frame)
        case.true(
            isinstance(version, str) and version,
            given="save(df)",
            expected="the version's name, a str",
            got=version,
        )
        expected = f"the table saved as {version}"
        got = loaded(store, {version: frame}, version)
        case.equal(given=f"save(df), load({version!r})", expected=expected, got=got)
        got = loaded(attempt(folder, clock=Calendar()), {version: frame}, version)
        given = f"save(df), then load({version!r}) by a second FeatureStore on the same folder"
        case.equal(given=given, expected=expected, got=got, hint="on-disk")


@exercise.check(Stage.SHAPE, hint="own-names")
def latest_is_what_was_just_saved(attempt, case):
    """load() without a name gives what was just saved without a name"""
    with new_folder() as folder:
        clock = Calendar()
        for number, frame in enumerate(tables(case, 2), start=1):
            clock.move(hours=1)
            store = attempt(folder, clock=clock)
            version = store.save(frame)
            given = f"save number {number} made {version!r}; load()"
            expected = f"the table saved as {version}"
            got = loaded(store, {version: frame})
            case.equal(given=given, expected=expected, got=got)
            got = loaded(attempt(folder, clock=clock), {version: frame})
            given += " by a second FeatureStore on the same folder"
            case.equal(given=given, expected=expected, got=got, hint="on-disk")


@exercise.check(Stage.RANGE, hint="names")
def a_name_is_no_path(attempt, case):
    """a name that is a path, is empty, is "latest", or hides a line break is refused"""
    with new_folder() as outside:
        folder = outside / "store"
        folder.mkdir()
        frame, _ = tables(case, 2)
        store = attempt(folder, clock=Calendar())
        bad = ["../x", "a/b", str(outside / "x"), "..", ".", "", "latest", ".hidden", "v1\n"]
        case.rng.shuffle(bad)
        for name in bad:
            case.raises(
                ValueError, lambda n=name: store.save(frame, n), given=f"save(df, {name!r})"
            )
            if name != "latest":
                case.raises(ValueError, lambda n=name: store.load(n), given=f"load({name!r})")
        good = "v1.2_final-A"
        got = loaded(store, {good: frame}, store.save(frame, good))
        case.equal(given=f"save(df, {good!r})", expected=f"the table saved as {good}", got=got)


@exercise.check(Stage.VALUE, hint="creation")
def latest_is_the_one_created_last(attempt, case):
    """load() gives the version created last, whatever the versions are called"""
    with new_folder() as folder:
        clock, saved = Calendar(), {}
        others = ["training", "a_b", "2026_01", "V3", "z"]
        case.rng.shuffle(others)
        names = ["v2", "v9", "v10", *others]
        for name, frame in zip(names, tables(case, len(names)), strict=True):
            clock.move(minutes=1)
            saved[name] = frame
            store = attempt(folder, clock=clock)
            store.save(frame, name)
            case.equal(
                given=f"saved in this order: {', '.join(saved)}; load()",
                expected=f"the table saved as {name}",
                got=loaded(store, saved),
            )


@exercise.check(Stage.VALUE, hint="order")
def clocks_and_file_times_do_not_matter(attempt, case):
    """the latest stays the latest when the clock goes back and when old files are touched"""
    with new_folder() as folder:
        clock = Calendar()
        saved = dict(zip(["v1", "v2", "v3"], tables(case, 3), strict=True))
        old_files = []
        for name, minutes in (("v1", 0), ("v2", 10), ("v3", -60)):
            clock.move(minutes=minutes)
            attempt(folder, clock=clock).save(saved[name], name)
            old_files = old_files or [folder, *folder.rglob("*")]
        case.equal(
            given="v1, ten minutes later v2, the clock is set back an hour, v3; load()",
            expected="the table saved as v3",
            got=loaded(attempt(folder, clock=clock), saved),
        )
        later = datetime.now(UTC).timestamp() + 86_400
        for path in old_files:
            if path.exists():
                os.utime(path, (later, later))
        case.equal(
            given="v1, v2, v3 saved, then the files of v1 touched, as a restore does; load()",
            expected="the table saved as v3",
            got=loaded(attempt(folder, clock=clock), saved),
        )


@exercise.check(Stage.VALUE, hint="unique")
def three_saves_in_one_instant(attempt, case):
    """three saves at one instant are three versions, and the third is the latest"""
    with new_folder() as folder:
        store = attempt(folder, clock=Calendar())
        frames = tables(case, 3)
        names = [store.save(frame) for frame in frames]
        given = f"three saves while the clock stands still gave {names}"
        case.equal(given=f"{given}: different names", expected=3, got=len(set(names)))
        saved = dict(zip(names, frames, strict=True))
        for name in names:
            got = loaded(store, saved, name)
            expected = f"the table saved as {name}"
            case.equal(given=f"{given}; load({name!r})", expected=expected, got=got)
        expected = f"the table saved as {names[-1]}"
        case.equal(given=f"{given}; load()", expected=expected, got=loaded(store, saved))


@exercise.check(Stage.VALUE, hint="immutable")
def a_version_never_changes(attempt, case):
    """saving under a name that exists raises FileExistsError and changes nothing"""
    with new_folder() as folder:
        store = attempt(folder, clock=Calendar())
        first, second = tables(case, 2)
        saved = {"v2 at first": first, "v2 at last": second}
        store.save(first, "v2")
        case.raises(
            FileExistsError,
            lambda: attempt(folder, clock=Calendar()).save(second, "v2"),
            given='save(df, "v2") when there is a v2',
        )
        case.equal(
            given='v2 saved twice; load("v2")',
            expected="the table saved as v2 at first",
            got=loaded(store, saved, "v2"),
        )


@exercise.check(Stage.VALUE, hint="schema")
def another_schema_raises(attempt, case):
    """load(…, expect_schema=…) raises ValueError unless names, types and order agree"""
    with new_folder() as folder:
        store = attempt(folder, clock=Calendar())
        (frame,) = tables(case, 1)
        store.save(frame, "v1")
        schema = schema_of(frame)
        store.load("v1", expect_schema=schema)
        name = str(case.rng.choice(list(schema)))
        others = {key: dtype for key, dtype in schema.items() if key != name}
        drifts = {
            f"{name} is not expected": others,
            "a column more is expected": schema | {"distance_km": "float64"},
            f"{name} is expected as complex128": schema | {name: "complex128"},
            "the columns are expected in the reverse order": dict(reversed(schema.items())),
        }
        for drift, expected in drifts.items():
            for version in ("v1", "latest"):
                case.raises(
                    ValueError,
                    lambda v=version, e=expected: store.load(v, expect_schema=e),
                    given=f"load({version!r}, expect_schema=…), where {drift}",
                )


@exercise.check(Stage.STRESS, hint="crash")
def a_save_that_stops_half_way_is_not_there(attempt, case):
    """a save that is killed, or finds the disk full, at any step leaves a store that works"""
    faults = Faults()
    saved = dict(zip(["v1", "v2", "v3"], tables(case, 3), strict=True))
    whole = [f"the table saved as {name}" for name in ("v1", "v2")]
    for kind in ("killed", "disk full") if os.name == "posix" else ("killed",):
        for step in range(1, 60):
            with new_folder() as folder:
                attempt(folder, clock=Calendar()).save(saved["v1"], "v1")
                store = attempt(folder, clock=Calendar())
                with faults.at(step, kind, folder):
                    store.save(saved["v2"], "v2")
                if not faults.struck:
                    break
                given = f'v1 is there; save(df, "v2"): {kind} at step {step} ({faults.struck})'
                store = attempt(folder, clock=Calendar())
                got = loaded(store, saved)
                case.true(got in whole, given=f"{given}; load()", expected=whole[0], got=got)
                got = loaded(store, saved, "v2")
                case.true(
                    got == whole[1] or got.startswith("it raised"),
                    given=f'{given}; load("v2")',
                    expected="an error, or the whole table",
                    got=got,
                )
                try:
                    store.save(saved["v3"], "v3")
                except Exception as error:
                    got = f"save raised {type(error).__name__}: {error}"
                else:
                    got = loaded(store, saved)
                case.equal(
                    given=f'{given}; then save(df, "v3") and load()',
                    expected="the table saved as v3",
                    got=got,
                    hint="leftovers",
                )


@exercise.solution
class FeatureStore:
    """A folder per version, made under a hidden name and renamed when it is complete."""

    def __init__(self, folder, *, clock=lambda: datetime.now(UTC)):
        self.folder, self.clock = Path(folder), clock

    def save(self, df, version=None):
        number = 1 + max(self._numbers().values(), default=0)
        if version is None:
            version = f"{self.clock():%Y%m%dT%H%M%SZ}-{number}"
        final = self._path(version)
        if final.exists():
            raise FileExistsError(f"version {version!r} exists, and a version never changes")
        staged = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
        df.to_parquet(staged / "data.parquet")
        meta = {"number": number, "schema": {c: str(d) for c, d in df.dtypes.items()}}
        (staged / "meta.json").write_text(json.dumps(meta))
        os.rename(staged, final)
        return version

    def load(self, version="latest", expect_schema=None):
        if version == "latest":
            numbers = self._numbers()
            version = max(numbers, key=numbers.get)
        path = self._path(version)
        found = json.loads((path / "meta.json").read_text())["schema"]
        if expect_schema is not None and list(expect_schema.items()) != list(found.items()):
            raise ValueError(f"version {version!r} has the schema {found}")
        return pd.read_parquet(path / "data.parquet")

    def _numbers(self):
        versions = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        return {p.name: json.loads((p / "meta.json").read_text())["number"] for p in versions}

    def _path(self, version):
        if version == "latest" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", version):
            raise ValueError(f"{version!r} is no name for a version")
        return self.folder / version


@exercise.another_way
class OneFileEach:
    """One Parquet file per version, its number before its name: nothing that could come apart."""

    def __init__(self, folder, *, clock=None):
        self.folder = Path(folder)

    def _files(self):
        """Number and name of each version, in the order of creation."""
        found = [p.stem.split("~", 1) for p in self.folder.glob("[0-9]*~*.parquet")]
        return sorted((int(number), name) for number, name in found)

    def _checked(self, version):
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        if not version or version[0] in "._-" or set(version) - allowed or version == "latest":
            raise ValueError(version)
        return version

    def save(self, df, version=None):
        files = self._files()
        number = files[-1][0] + 1 if files else 1
        version = self._checked(f"auto{number}" if version is None else version)
        if version in [name for _, name in files]:
            raise FileExistsError(version)
        buffer = io.BytesIO()
        df.to_parquet(buffer)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, suffix=".unfinished")
        with open(descriptor, "wb") as file:
            file.write(buffer.getvalue())
        os.link(temporary, self.folder / f"{number:012}~{version}.parquet")
        os.unlink(temporary)
        return version

    def load(self, version="latest", expect_schema=None):
        files = self._files()
        if version != "latest":
            self._checked(version)
            files = [(number, name) for number, name in files if name == version]
        if not files:
            raise LookupError(version)
        number, name = files[-1]
        df = pd.read_parquet(self.folder / f"{number:012}~{name}.parquet")
        if expect_schema is not None:
            expected, found = pd.Series(expect_schema), df.dtypes.astype(str)
            if [*expected.index, *expected] != [*found.index, *found]:
                raise ValueError("another schema")
        return df


@exercise.another_way
class Manifest:
    """A list of all versions, replaced in one step, as table formats do: the last is the latest."""

    def __init__(self, folder, *, clock=lambda: datetime.now(UTC)):
        self.folder, self.clock = Path(folder), clock
        self.manifest = self.folder / "manifest.json"

    def _entries(self):
        """Version → its file and schema, in the order of creation."""
        return json.loads(self.manifest.read_text()) if self.manifest.exists() else {}

    def _checked(self, version):
        if version == "latest" or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", version, re.ASCII):
            raise ValueError(version)
        return version

    def save(self, df, version=None):
        entries = self._entries()
        version = f"n{len(entries) + 1:06}" if version is None else self._checked(version)
        if version in entries:
            raise FileExistsError(version)
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".data", delete=False) as file:
            df.to_parquet(file)
        entries[version] = {"file": Path(file.name).name, "schema": list(schema_of(df).items())}
        with tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as file:
            json.dump(entries, file)
        os.replace(file.name, self.manifest)
        return version

    def load(self, version="latest", expect_schema=None):
        entries = self._entries()
        entry = entries[list(entries)[-1] if version == "latest" else self._checked(version)]
        found = [tuple(item) for item in entry["schema"]]
        if expect_schema is not None and list(expect_schema.items()) != found:
            raise ValueError(f"the schema is {found}")
        return pd.read_parquet(self.folder / entry["file"])


@exercise.wrong("own-names")
class ReceivedPattern:
    """The received answer: the latest version is cut out of the largest file name, behind a '_'."""

    def __init__(self, folder, *, clock=datetime.now):
        self.folder, self.clock = Path(folder), clock

    def save(self, df, version=None):
        version = version or f"{self.clock():%Y%m%d_%H%M%S}"
        df.to_parquet(self.folder / f"features_{version}.parquet")
        about = {"version": version, "n_features": df.shape[1], "schema": schema_of(df)}
        with open(self.folder / f"metadata_{version}.json", "w") as file:
            json.dump(about, file)
        return version

    def load(self, version="latest", expect_schema=None):
        if version == "latest":
            version = self._latest()
        json.loads((self.folder / f"metadata_{version}.json").read_text())
        return pd.read_parquet(self.folder / f"features_{version}.parquet")

    def _latest(self):
        return max(self.folder.glob("features_*.parquet")).stem.split("_")[-1]


@exercise.wrong("names")
class ReceivedPatternRepaired(ReceivedPattern):
    """Its parser repaired, nothing else: any text is still a path."""

    def _latest(self):
        return max(self.folder.glob("features_*.parquet")).stem.removeprefix("features_")


@exercise.wrong("round-trip")
class TextOnly(FeatureStore):
    """CSV has no types: categories and times come back as text."""

    def save(self, df, version=None):
        version = super().save(df, version)
        df.to_csv(self.folder / version / "data.csv", index=False)
        return version

    def load(self, version="latest", expect_schema=None):
        return pd.read_csv(self.folder / version / "data.csv")


@exercise.wrong("on-disk")
class RemembersInMemory:
    """Everything lies in attributes, so the next process finds nothing."""

    def __init__(self, folder, *, clock=None):
        self.saved = {}

    def save(self, df, version=None):
        version = version or f"n{len(self.saved)}"
        self.saved[version] = df.copy()
        return version

    def load(self, version="latest", expect_schema=None):
        return self.saved[list(self.saved)[-1] if version == "latest" else version]


@exercise.wrong("on-disk")
class RemembersTheLatest(FeatureStore):
    """The tables lie in the folder, but which one is the latest only this object knows."""

    def save(self, df, version=None):
        self.last = super().save(df, version)
        return self.last

    def load(self, version="latest", expect_schema=None):
        return super().load(self.last if version == "latest" else version, expect_schema)


@exercise.wrong("names")
class NoSlashes(FeatureStore):
    """Forbids what came to mind, '/', rather than saying what is allowed."""

    def _path(self, version):
        if "/" in version or not version:
            raise ValueError(version)
        return self.folder / version


@exercise.wrong("names")
class DollarForTheEnd(FeatureStore):
    """`$` matches before a final line break too, so "v1\\n" passes."""

    def _path(self, version):
        if version == "latest" or not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*$", version):
            raise ValueError(version)
        return self.folder / version


@exercise.wrong("creation")
class LargestName(FeatureStore):
    """The latest is the largest name, so v9 stays the latest when v10 is saved."""

    def _numbers(self):
        names = sorted(path.name for path in self.folder.iterdir() if path.name[0] != ".")
        return {name: number for number, name in enumerate(names)}


@exercise.wrong("order")
class FileTimes(FeatureStore):
    """The latest is the youngest file; a restore or a `touch` makes any version that."""

    def _numbers(self):
        order = sorted(
            super()._numbers().items(),
            key=lambda item: ((self.folder / item[0]).stat().st_mtime, item[1]),
        )
        return {name: place for place, (name, _) in enumerate(order)}


@exercise.wrong("order")
class ByTheClock(FeatureStore):
    """The latest is the one with the largest time of creation, by a clock that can go back."""

    def save(self, df, version=None):
        version = super().save(df, version)
        (self.folder / version / "created.txt").write_text(f"{self.clock().timestamp():.6f}")
        return version

    def _numbers(self):
        versions = super()._numbers()
        return {v: float((self.folder / v / "created.txt").read_text()) for v in versions}


@exercise.wrong("unique")
class SecondsForAName(FeatureStore):
    """The default name is the second, so the next save within it meets its own name."""

    def save(self, df, version=None):
        if version is None:
            version = f"{self.clock():%Y%m%dT%H%M%S}"
        return super().save(df, version)


@exercise.wrong("immutable")
class Overwrites(FeatureStore):
    """A name that exists is replaced: who trained on it yesterday cannot load it today."""

    def save(self, df, version=None):
        if version is not None and self._path(version).exists():
            shutil.rmtree(self._path(version))
        return super().save(df, version)


@exercise.wrong("schema")
class SchemaForTheRecord(FeatureStore):
    """Writes the schema down, as the received answer does, and never looks at it."""

    def load(self, version="latest", expect_schema=None):
        return super().load(version)


@exercise.wrong("schema")
class NamesAlone(FeatureStore):
    """Compares the names of the columns and not their types."""

    def load(self, version="latest", expect_schema=None):
        df = super().load(version)
        if expect_schema is not None and list(expect_schema) != list(df.columns):
            raise ValueError("other columns")
        return df


@exercise.wrong("schema")
class EqualDicts(FeatureStore):
    """Two dicts are equal in any order; a model that reads by position is not."""

    def load(self, version="latest", expect_schema=None):
        df = super().load(version)
        if expect_schema is not None and expect_schema != schema_of(df):
            raise ValueError("another schema")
        return df


@exercise.wrong("crash")
class MetadataLast(FeatureStore):
    """Writes the table, then the metadata, where every reader looks: in between it is broken."""

    def save(self, df, version=None):
        number = 1 + max(self._numbers().values(), default=0)
        version = f"n{number}" if version is None else version
        final = self._path(version)
        final.mkdir()
        df.to_parquet(final / "data.parquet")
        meta = {"number": number, "schema": schema_of(df)}
        (final / "meta.json").write_text(json.dumps(meta))
        return version


@exercise.wrong("crash")
class PointerInPlace(FeatureStore):
    """Keeps the name of the latest in a file that is emptied before it is written again."""

    def save(self, df, version=None):
        version = super().save(df, version)
        (self.folder / ".latest").write_text(version)
        return version

    def load(self, version="latest", expect_schema=None):
        if version == "latest":
            version = (self.folder / ".latest").read_text()
        return super().load(version, expect_schema)


@exercise.wrong("crash")
class CleansUpAfterwards(MetadataLast):
    """Removes what a failed save left behind, which only a process that lives on can do."""

    def save(self, df, version=None):
        name = version
        try:
            return super().save(df, version)
        except OSError as error:
            if name is not None and not isinstance(error, FileExistsError):
                shutil.rmtree(self._path(name), ignore_errors=True)
            raise


@exercise.wrong("leftovers")
class OneTemporaryFolder(FeatureStore):
    """Every save is prepared in the same folder, and what a crash left there blocks the next."""

    def save(self, df, version=None):
        number = 1 + max(self._numbers().values(), default=0)
        version = f"n{number}" if version is None else version
        final = self._path(version)
        if final.exists():
            raise FileExistsError(version)
        staged = self.folder / ".staged"
        staged.mkdir()
        df.to_parquet(staged / "data.parquet")
        meta = {"number": number, "schema": schema_of(df)}
        (staged / "meta.json").write_text(json.dumps(meta))
        staged.rename(final)
        return version
