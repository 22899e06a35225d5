"""Tables: kinds found, values kept, written so that they load as the original does, measured as others measure."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import castalia
from castalia.core.data import Batch
from castalia.core.errors import DataError, UsageError
from castalia.core.specs.table import Part, TableSpec
from castalia.media.named import medium_for, open_data
from castalia.media.table.kinds import kind_of, number_in, part_of, settled, text_of
from castalia.media.table.measures import closest, copies, f1_scores, quality, rows_of, shapes, trends
from castalia.media.table.medium import TableMedium, frame_of
from castalia.media.table.read import TableOptions, open_table, table_of
from castalia.media.table.sets import SIMULATED, centres, log_density, people, simulated

MEDIUM = TableMedium()
MIXED = """id,age,height,born,city,smokes,score
1,31,1.70,1993-05-01,Oslo,yes,
2,45,1.65,1979-11-30,Riga,no,3
3,28,1.82,1996-02-29,Oslo,no,5
4,31,1.77,1993-01-15,"Lyon, old town",yes,4
"""


def file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_kinds_are_found(tmp_path: Path) -> None:
    data = open_table(file(tmp_path / "a.csv", MIXED), TableOptions())
    kinds = {part.name: part.kind for part in data.spec.parts}
    assert kinds == {
        "age": "integer",
        "height": "number",
        "born": "date",
        "city": "category",
        "smokes": "boolean",
        "score": "integer",
    }
    assert data.spec.keys == (("id", 0),)
    assert any("'id' numbers the rows" in note for note in data.notes)
    parts = {part.name: part for part in data.spec.parts}
    assert parts["height"].decimals == 2
    assert parts["smokes"].values == ("no", "yes")
    assert parts["score"].missing
    assert not parts["age"].missing
    assert (parts["age"].low, parts["age"].high) == (28, 45)
    assert data.missing[:, data.spec.place("score")].tolist() == [1, 0, 0, 0]


def test_every_value_is_written_as_it_was_read(tmp_path: Path) -> None:
    data = open_table(file(tmp_path / "a.csv", MIXED), TableOptions())
    (path,) = MEDIUM.write(data.batch(np.arange(4)), data.spec, tmp_path / "out", start=0, recipe={"seed": 1})
    before, after = (pd.read_csv(p) for p in (tmp_path / "a.csv", path))
    pd.testing.assert_frame_equal(before.drop(columns="id"), after.drop(columns="id"))
    assert after["id"].tolist() == [0, 1, 2, 3]
    assert list(after.columns) == list(before.columns)
    packed = pd.read_parquet(path.with_suffix(".parquet"))
    assert [str(t) for t in packed.dtypes] == [str(t) for t in before.dtypes]
    assert path.with_suffix(".json").is_file()


def test_types_of_parquet_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "n": np.arange(5, dtype=np.int32) * 3 % 4,
            "x": np.array([0.5, 1.25, np.nan, 2.0, 3.0], np.float32),
            "b": [True, False, True, True, False],
            "c": pd.Categorical(["a", "b", "a", None, "b"]),
            "d": pd.to_datetime(["2020-01-01", "2021-06-05", "2020-01-01", "2022-03-04", "2020-12-31"]),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    data = open_table(tmp_path / "t.parquet", TableOptions())
    found = frame_of(data.batch(np.arange(5)), data.spec)
    assert [str(t) for t in found.dtypes] == [str(t) for t in frame.dtypes]
    assert found["d"].tolist() == frame["d"].tolist()
    assert found["b"].tolist() == frame["b"].tolist()
    np.testing.assert_array_equal(found["x"], frame["x"])


def test_kinds_can_be_told(tmp_path: Path) -> None:
    path = file(tmp_path / "z.csv", "zip,y\n01234,1\n99999,0\n01234,1\n")
    assert open_table(path, TableOptions(kinds=("zip=integer",))).spec.parts[0].kind == "integer"
    data = open_table(path, TableOptions(target="y"))
    assert data.spec.parts[0].values == ("01234", "99999")
    assert data.spec.target == "y"
    with pytest.raises(UsageError, match="COLUMN=KIND"):
        TableOptions(kinds=("zip",))
    with pytest.raises(DataError, match=r"no column 'zap'.*'zip'"):
        open_table(path, TableOptions(kinds=("zap=category",)))
    assert open_table(path, TableOptions(leave_out=("zip",))).spec.names == ("y",)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", "+3"], "integer"),
        (["1", "2.5", "1e3"], "number"),
        (["True", "False"], "boolean"),
        (["yes", "no"], "boolean"),
        (["yes", "no", "maybe"], "category"),
        (["2020-02-30", "2020-01-01"], "category"),
        (["31.12.1999", "01.01.2000"], "date"),
        (["2020-01-01 10:00:00"], "date"),
        (["nan", "1"], "category"),
        (["1_000", "2"], "category"),
        (["01234", "10115"], "category"),  # postcodes
        (["0", "0.5", "10"], "number"),
        (["9007199254740993", "1"], "category"),  # more digits than a float holds
    ],
)
def test_kind_of(texts: list[str], kind: str) -> None:
    assert kind_of(texts) == kind


def test_numbers_and_texts_of_a_column() -> None:
    part = part_of("x", np.array(["1.50", "2.25"], object), None, "")
    assert [text_of(v, part) for v in (1.5, 2.25)] == ["1.50", "2.25"]
    np.testing.assert_array_equal(settled(np.array([1.512, 9.0, -3.0]), part), [1.51, 2.25, 1.5])
    free = part_of("x", np.array(["1e-7", "0.1"], object), None, "")
    assert number_in(text_of(0.1, free), free) == 0.1
    old = part_of("d", np.array(["1955-11-05"], object), None, "")
    assert text_of(number_in("1955-11-05", old) or 0, old) == "1955-11-05"


def test_infinite_numbers_are_named() -> None:
    with pytest.raises(DataError, match="'inf'"):
        part_of("x", np.array(["1.5", "inf", "2"], object), None, "")
    assert part_of("x", np.array(["inf", "sup"], object), None, "").kind == "category"


def test_marks_gzip_and_folders(tmp_path: Path) -> None:
    for name, text in (("s.csv", "a;b\n1;x\n2;y\n"), ("t.tsv", "a\tb\n1\tx\n2\ty\n"), ("u.csv", "a, b\n1, x\n2, y\n")):
        data = open_table(file(tmp_path / name, text), TableOptions())
        assert data.spec.names == ("a", "b"), name
        assert data.spec.parts[1].values == ("x", "y"), name
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(b"a;b\n1;x\n2;y\n"))
    assert open_table(tmp_path / "z.csv.gz", TableOptions()).spec.names == ("a", "b")
    (tmp_path / "f").mkdir()
    file(tmp_path / "f" / "train.csv", "a\n1\n2\n3\n")
    file(tmp_path / "f" / "test.csv", "a\n4\n")
    assert len(open_table(tmp_path / "f", TableOptions(), split="test")) == 1
    assert len(open_table(tmp_path / "f", TableOptions())) == 3
    assert medium_for(str(tmp_path / "f")).name == "table"


def test_damage_and_strangers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        open_table(file(tmp_path / "e.csv", "a,b\n"), TableOptions())
    with pytest.raises(DataError, match="not a table that can be read"):
        open_table(file(tmp_path / "r.csv", "a,b\n1,2\n1,2,3,4\n"), TableOptions())
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="not a table that can be read"):
        open_table(tmp_path / "p.parquet", TableOptions())
    with pytest.raises(DataError, match=r"same name|not a table"):
        table_of(pd.DataFrame([[1, 2]], columns=["a", "a"]), TableOptions(), "frame")
    with pytest.raises(DataError, match="does not exist"):
        open_table(tmp_path / "none.csv", TableOptions())


def test_other_data_in_the_shape_of_a_run(tmp_path: Path) -> None:
    like = open_table(file(tmp_path / "a.csv", MIXED), TableOptions()).spec
    other = MIXED.replace("Riga", "Rome").replace("3,28", "3,").splitlines()
    data = open_table(file(tmp_path / "b.csv", "\n".join(other)), TableOptions(), like=like)
    assert len(data) == 2
    assert data.spec == like
    assert any("'Rome'" in note for note in data.notes)
    with pytest.raises(DataError, match=r"line 4: column 'age' has a missing value"):
        open_table(tmp_path / "b.csv", TableOptions(columns_alike=True), like=like)
    with pytest.raises(DataError, match="no column 'age'"):
        open_table(file(tmp_path / "c.csv", "x\n1\n"), TableOptions(), like=like)


def test_typed_rows() -> None:
    spec = people("test").spec
    row = "age=31,income=2000.50,education=school,children=1,city=Oslo,owner=no,since=2010-02-03"
    x = MEDIUM.read(row, spec)
    assert x.tolist()[:4] == [31, 2000.5, 2, 1]
    for wrong, what in (
        (row.replace("Oslo", "Osol"), "'Oslo'"),
        (row.replace("age=31", "age=old"), "integer is expected"),
        ("age=31", "these are missing"),
        ("agee=3", "'age'"),
    ):
        with pytest.raises(UsageError, match=what):
            MEDIUM.read(wrong, spec)


def test_large_lists_and_keys_are_left_out(tmp_path: Path) -> None:
    rows = "\n".join(f"u{i},note {i * 7 % 2500},{i % 3}" for i in range(2600))
    data = open_table(file(tmp_path / "k.csv", f"user,comment,x\n{rows}\n"), TableOptions())
    assert data.spec.names == ("x",)
    assert [key[0] for key in data.spec.keys] == ["user"]
    assert any("'comment'" in note and "2,500" in note for note in data.notes)


# measures


def pair() -> tuple[Batch, Batch, TableSpec]:
    one, other = people("train"), people("test")
    return one.batch(np.arange(300)), other.batch(np.arange(300)), one.spec


def test_quality_is_that_of_sdmetrics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sdmetrics.reports.single_table import QualityReport

        a, b, spec = pair()
        frames = [frame_of(batch, spec) for batch in (a, b)]
        for frame in frames:
            frame["since"] = pd.to_datetime(frame["since"])
            for column in ("age", "children"):
                frame[column] = frame[column].astype(float)
        kinds = {"integer": "numerical", "number": "numerical", "date": "datetime"}
        columns = {part.name: {"sdtype": kinds.get(part.kind, "categorical")} for part in spec.parts}
        columns["since"]["datetime_format"] = "%Y-%m-%d"
        report = QualityReport()
        report.generate(*frames, {"columns": columns}, verbose=False)
        pairs = report.get_details("Column Pair Trends")["Score"].to_numpy()
        single = report.get_details("Column Shapes")["Score"].to_numpy()
    real, made = rows_of(a), rows_of(b)
    np.testing.assert_allclose(shapes(real, made, spec), single, rtol=0, atol=1e-12)
    there = ~np.isnan(pairs)
    assert there.sum() >= 8
    np.testing.assert_allclose(trends(real, made, spec)[there], pairs[there], rtol=0, atol=1e-12)


def test_quality_of_equal_and_of_broken_rows() -> None:
    a, _, spec = pair()
    rows = rows_of(a)
    assert quality(rows, rows, spec)["quality"] == pytest.approx(1)
    broken = rows[0].copy()
    broken[:, 0] = np.random.default_rng(0).permutation(broken[:, 0])  # the same ages, at other people
    found = quality(rows, (broken, rows[1]), spec)
    assert found["shapes"] == pytest.approx(1)
    assert found["trends"] < 0.97


def test_copies_and_closest_rows() -> None:
    a, b, spec = pair()
    train, held = rows_of(a), rows_of(b)
    assert copies(train, train).mean() == 1
    assert closest(train, train, spec).max() == 0
    assert copies(held, train).mean() < 0.05
    assert closest(held, train, spec).mean() > 0.01
    two = TableSpec((Part("x", "number", low=0, high=10), Part("c", "category", ("a", "b"))))
    known = (np.array([[0.0, 0], [2.0, 0]]), np.zeros((2, 2), np.uint8))
    asked = (np.array([[3.0, 1]]), np.zeros((1, 2), np.uint8))
    assert closest(asked, known, two)[0] == pytest.approx((1 / 1 + 1) / 2)  # one deviation, another category
    equal = (np.full((3, 2), 0.1) * [1, 0], np.zeros((3, 2), np.uint8))  # whose deviation is not 0 by rounding
    assert closest(asked, equal, two)[0] < 10


def test_closest_rows_are_those_of_rows_spread_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is missing on either side, and cut into pieces: as sums of differences of one number for each value."""
    from benchmarks.tables import spread_out

    random, parts = np.random.default_rng(0), []
    for j in range(4):
        listed = {"values": ("a", "b", "c")} if j % 2 else {"low": 0.0, "high": 9.0}
        parts.append(Part(f"p{j}", "category" if j % 2 else "number", missing=True, **listed))
    spec = TableSpec(tuple(parts))

    def some(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.where(np.arange(4) % 2, random.integers(0, 3, (n, 4)), 9 * random.random((n, 4)))
        return x, (random.random((n, 4)) < 0.3).astype(np.uint8)

    made, train = some(50), some(70)
    monkeypatch.setattr("castalia.media.table.measures.DISTANCES", 500)
    apart = np.abs(spread_out(made, train, spec)[:, None] - spread_out(train, train, spec)).sum(2)
    np.testing.assert_allclose(closest(made, train, spec), apart.min(1), rtol=0, atol=1e-12)


def test_use_falls_where_the_target_is_shuffled() -> None:
    train, test = people("train"), people("test")
    real, held = rows_of(train.batch(np.arange(1500))), rows_of(test.batch(np.arange(400)))
    good = f1_scores(real, held, train.spec)
    shuffled = real[0].copy()
    at = train.spec.place("owner")
    shuffled[:, at] = np.random.default_rng(0).permutation(shuffled[:, at])
    bad = f1_scores((shuffled, real[1]), held, train.spec)
    assert good["mean"] > 0.6
    assert bad["mean"] < good["mean"] - 0.2
    assert set(good) == {"tree", "boosted", "logistic", "perceptron", "mean"}


@pytest.mark.parametrize(("name", "published"), [("gm-grid", -3.06), ("gm-gridr", -3.06), ("gm-ring", -1.70)])
def test_the_truth_of_simulated_tables(name: str, published: float) -> None:
    """CTGAN's table: the log-likelihood of real rows (SDGym 0.2.0, Identity)."""
    assert name in SIMULATED
    x = simulated(name, "test").x.numpy()
    assert log_density(name, x).mean() == pytest.approx(published, abs=0.02)
    grid = np.stack(np.meshgrid(*[np.linspace(-7, 7, 700)] * 2, indexing="ij"), -1).reshape(-1, 2)
    assert np.exp(log_density(name, grid)).sum() * (14 / 699) ** 2 == pytest.approx(1, abs=1e-3)
    assert len(centres(name)) == (8 if name == "gm-ring" else 25)


def test_adult(castalia_data: Path) -> None:
    train, test = open_data("adult", split="train"), open_data("adult", split="test")
    assert (len(train), len(test)) == (29_256, 3_305)
    assert train.spec.target == "income"
    kinds = [part.kind for part in train.spec.parts]
    assert kinds.count("integer") == 6
    assert sum(kind in ("category", "boolean") for kind in kinds) == 9
    batch = train.batch(np.arange(50))
    original = pd.read_csv(io.BytesIO(gzip.decompress((castalia_data / "adult" / "adult.csv.gz").read_bytes())))
    assert [str(t) for t in frame_of(batch, train.spec).dtypes] == [str(t) for t in original.dtypes]
    assert torch.equal(batch.x, batch.x.round())


def test_rows_that_end_with_a_mark(tmp_path: Path) -> None:
    data = open_table(file(tmp_path / "a.csv", "a,b,c\n1,2,3,\n4,5,6,\n4,5,7,\n"), TableOptions())
    assert data.x.tolist() == [[1, 2, 3], [4, 5, 6], [4, 5, 7]]
    named = open_table(file(tmp_path / "b.csv", '"a","b"\n"r1",1,2\n"r2",4,5\n'), TableOptions())
    assert named.x.tolist() == [[1, 2], [4, 5]]


def test_the_line_that_is_told_has_the_strange_value(tmp_path: Path) -> None:
    data = open_table(file(tmp_path / "a.csv", "a,b\n1,\n2,x\n3,y\n"), TableOptions())
    with pytest.raises(DataError, match="line 3: column 'b' has 'z'"):
        open_table(file(tmp_path / "b.csv", "a,b\n1,\n2,z\n"), TableOptions(columns_alike=True), like=data.spec)


@pytest.mark.parametrize(
    "text",
    ["a,b\n0900-01-01,1\n1899-12-31,2\n9999-12-31,2\n", 'a,b\n"x\ry",1\n"x\nz",2\n'],
    ids=["far dates", "carriage returns"],
)
def test_what_is_written_reads_as_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    data = open_table(path, TableOptions())
    MEDIUM.write(data.batch(np.arange(len(data))), data.spec, tmp_path / "out")
    again = open_table(tmp_path / "out" / "table.csv", TableOptions(), like=data.spec)
    assert torch.equal(again.x, data.x)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime(["2020-01-01 10:00:00", "1960-01-01 00:00:01"]).tz_localize("UTC")),
        pd.Series(pd.to_datetime(["2020-10-25 02:30:00", "1960-01-01 00:00:01"]).tz_localize("Europe/Oslo", True)),
        pd.Series([True, True]),
        pd.Series([False, False]),
    ],
    ids=["UTC", "zone", "true", "false"],
)
def test_columns_of_parquet_keep_their_types(tmp_path: Path, column: pd.Series) -> None:
    frame = pd.DataFrame({"a": column, "b": [1, 2]})
    data = table_of(frame, TableOptions(), "it")
    back = frame_of(data.batch(np.arange(2)), data.spec)
    pd.testing.assert_frame_equal(back, frame)
    MEDIUM.write(data.batch(np.arange(2)), data.spec, tmp_path)


def test_a_data_frame_goes_in_and_comes_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"price": rng.normal(10, 2, 60).round(2), "kind": rng.choice(["a", "b"], 60), "n": rng.integers(0, 9, 60)}
    )
    run = castalia.train("tvae", frame, tmp_path / "run", recipe="tvae-tiny", steps=2, quiet=True)
    assert (tmp_path / "run.parquet").is_file()
    drawn = castalia.sample(run, 5, seed=1).frame()
    assert list(drawn.columns) == ["price", "kind", "n"]
    assert drawn.dtypes.equals(frame.dtypes)
    assert set(drawn["kind"]) <= {"a", "b"}
    again = castalia.train("tvae", frame, tmp_path / "run", recipe="tvae-tiny", steps=2, quiet=True, resume=True)
    assert castalia.sample(again, 5, seed=1).frame().equals(drawn)
    with pytest.raises(UsageError, match="data frame"):
        castalia.train("tvae", [[1, 2]], tmp_path / "other", recipe="tvae-tiny", steps=2)
    pictures = castalia.train("vae", "digits", tmp_path / "vae", recipe="vae-tiny", steps=1, quiet=True)
    with pytest.raises(UsageError, match="rows of tables"):
        castalia.sample(pictures, 1).frame()
