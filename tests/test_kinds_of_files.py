"""Files that were once read wrongly without a word: each kind is now read right, or refused with the option that reads it."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from pdstudy import Study
from pdstudy.__main__ import app
from pdstudy.advice import budget
from pdstudy.data import sources, tasks
from pdstudy.data.formats import TextError
from pdstudy.models.train import Watch
from pdstudy.run.execute import execute
from pdstudy.run.scheduler import RunError
from pdstudy.storage import files, store
from pdstudy.study import plan


def typed(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def init(path, *words) -> tuple[str, dict]:
    """Return what `init` says of a file that it reads, and the task that it writes."""
    code, message = typed("init", path, "--to", path.with_name("out.yaml"), "--force", *words)
    assert code == 0, message
    return message, yaml.safe_load(path.with_name("out.yaml").read_text(encoding="utf-8"))["task"]


def refused(path, *words) -> str:
    """Return the sentence with which `init` refuses a file, having written nothing."""
    code, message = typed("init", path, "--to", path.with_name("out.yaml"), *words)
    assert code == 2 and not path.with_name("out.yaml").exists(), message
    return message


def write(path, rows, **how):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **how).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def reviews(n: int = 200, names=("bad", "good")) -> list[tuple[str, str]]:
    return [(f"the film number {i} was as one expects it", names[i % len(names)]) for i in range(n)]


def task_of(**values) -> tasks.Task:
    return tasks.Task("mine", "", tasks.Files(**values), (), "", "", "")


# -- classes by name


def test_numbers_beside_names_are_refused_and_read_in_the_order_that_is_given(tmp_path):
    train = write(tmp_path / "train.csv", [("text", "label"), *reviews(names=("World", "Art"))])
    test = write(tmp_path / "test.csv", [("text", "label"), ("one more", "0"), ("and another", "1")])
    message = refused(train, "--test", test)
    assert (
        "test.csv, line 2: the labels are the numbers 0, 1" in message
        and "labels: [...] in the params file or --labels of init" in message
    )
    _, task = init(train, "--test", test, "--labels", "World", "--labels", "Art")
    assert task["labels"] == ["World", "Art"]
    raw = sources.read(task_of(train=str(train), test=str(test), labels=("World", "Art")))
    assert raw.labelled["test"] == [(("one more",), 0), (("and another",), 1)] and raw.labelled["train"][0][1] == 0


def as_parquet(path, table, names):
    feature = {"_type": "ClassLabel", "names": names}
    features = json.dumps({"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "label": feature}}})
    pq.write_table(pa.table(table).replace_schema_metadata({"huggingface": features}), path)


def as_folder(path, table, names):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(path)


@pytest.mark.parametrize("save", [as_parquet, as_folder])
def test_stored_class_names_are_read_and_matched_whatever_their_order(save, tmp_path):
    save(tmp_path / "train.parquet", {"text": [f"t {i}" for i in range(6)], "label": [0, 1] * 3}, ["neg", "pos"])
    save(tmp_path / "test.parquet", {"text": ["u 0", "u 1"], "label": [0, 1]}, ["pos", "neg"])
    raw = sources.read(task_of(train=str(tmp_path / "train.parquet"), test=str(tmp_path / "test.parquet")))
    assert raw.labels == ("neg", "pos") and [y for _, y in raw.labelled["test"]] == [1, 0]
    save(tmp_path / "other.parquet", {"text": ["u 0", "u 1"], "label": [0, 1]}, ["pos", "mixed"])
    with pytest.raises(TextError, match="the label is 'mixed', none of neg, pos"):
        sources.read(task_of(train=str(tmp_path / "train.parquet"), test=str(tmp_path / "other.parquet")))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([["a", "b"]] * 60, "a list of 2; a text has one label here"),
        (pa.array([0, 1] * 30, pa.date32()), "the label is 1970-01-01, of type date; write class names or whole numbers"),
        ([{"k": 1}] * 60, "a group of 1; a text has one label here"),
        ([b"x", b"y"] * 30, "of type bytes"),
        ([1.5, 2.5] * 30, "a number with decimals"),
    ],
    ids=["list", "date", "group", "bytes", "decimals"],
)
def test_a_label_of_another_type_is_named(values, sentence, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": [f"a text of words {i}" for i in range(60)], "label": values}), path)
    assert sentence in refused(path, "--label", "label")


def test_a_class_called_nan_is_a_class(tmp_path):
    message, task = init(write(tmp_path / "t.csv", [("text", "lang"), *reviews(names=("nan", "yue", "inf"))]))
    assert '"nan" 67' in message and task["label"] == "lang"


# -- what a repeat is, and what is said of losses


@pytest.mark.parametrize(
    "signs", [("C", "C++", "C#"), ("ok 😀", "ok 😡", "ok"), ("दिन", "दीन", "दन")], ids=["plus", "emoji", "marks"]
)
def test_texts_that_differ_by_a_sign_all_stay(signs, tmp_path):
    rows = [(f"how to read number {i} in {sign}", str(k)) for i in range(60) for k, sign in enumerate(signs)]
    message, _ = init(write(tmp_path / "t.csv", [("text", "label"), *rows]))
    assert "180 labelled texts, 3 classes" in message and "repeated" not in message


def test_texts_of_emoji_are_texts(tmp_path):
    faces = {"good": "😀🎉💕👍", "bad": "😡💔👎🤮"}
    rows = [
        (f"{faces[k][i % 4]}{faces[k][i // 4 % 4]}{faces[k][i // 16 % 4]} {'!' * (i // 64)}", k) for i in range(150) for k in faces
    ]
    message, _ = init(write(tmp_path / "t.csv", [("text", "label"), *rows]))
    assert "300 labelled texts" in message and "without a word" not in message


LOST = [
    *reviews(200), ("", "bad"), (" ", "good"), ("The film  NUMBER 0 was as one expects it", "bad"),
    ("the film number 1 was as one expects it", "bad"), ("the film number 2 was as one expects it", "bad"),
]  # fmt: skip


def test_every_loss_is_said_with_its_count_and_examples_by_init_and_before_advice_trains(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", [("text", "label"), *LOST])
    message, _ = init(path)
    assert "200 labelled texts in 205 rows" in message
    assert "train: 2 of 205 texts without a word" in message and "train: 1 of 205 texts repeated with another label" in message
    assert "train: 3 of 205 texts repeated" in message or "texts repeated except for case, white space or Unicode form" in message
    assert '"the film number 1 was as one expects it"' in message or '"The film NUMBER 0 was as one expects it"' in message
    monkeypatch.setattr(
        budget, "spend", lambda *words, **options: (_ for _ in ()).throw(RunError("stopped before training", bad_input=True))
    )
    code, advised = typed("advise", path.with_name("out.yaml"))
    assert code == 2 and "train: 2 of 205 texts without a word" in advised and advised.endswith("stopped before training")


# -- which columns


def table(**columns) -> list:
    return [tuple(columns), *zip(*columns.values(), strict=True)]


TEXTS = [f"a longer text with a number {i} in it" for i in range(600)]


@pytest.mark.parametrize(
    ("columns", "label", "sentence"),
    [
        ({"text": TEXTS, "intent": [f"i{i % 230}" for i in range(600)], "domain": ["a", "b", "c"] * 200}, "intent", "not used as label: 'domain' (3 values)"),
        ({"text": TEXTS, "category": [f"c{i % 300}" for i in range(600)], "split": ["train", "test"] * 300}, "category", "not used as label: 'split'"),
        ({"text": TEXTS, "mood": [f"m{i % 40}" for i in range(600)], "lang": ["en", "de"] * 300}, "mood", "not used as label: 'lang'"),
        ({"text": TEXTS, "lang": ["en", "de"] * 300}, "lang", "label: 'lang' (2 different short values in its first rows)"),
        ({"id": range(600), "comment_text": TEXTS, "toxic": [0, 1] * 300, "rude": [1, 0] * 300}, "toxic", "have only 0 and 1, as labels of which a text may have several"),
        ({"text": TEXTS, "score": [i % 101 for i in range(600)]}, "score", "101 whole numbers from 0 to 100, and each is a class of its own"),
        ({"question": TEXTS, "passage": TEXTS[::-1], "answer": ["True", "False"] * 300}, "answer", "text: 'question' and 'passage' (a pair that is named so)"),
        ({"title": TEXTS, "summary of it": TEXTS[::-1], "label": ["a", "b"] * 300}, "label", "two columns make a pair: --text 'title' --text 'summary of it'"),
    ],
    ids=["many intents", "split", "lang", "language is the label", "one-hot", "score", "passage", "two texts"],
)  # fmt: skip
def test_init_says_which_columns_it_took_and_offers_the_other_reading(columns, label, sentence, tmp_path):
    message, task = init(write(tmp_path / "t.csv", table(**columns)), "--rare", "keep")
    assert task["label"] == label and sentence in message


def test_rare_classes_are_named_all_at_once_and_may_be_dropped_merged_or_kept(tmp_path):
    rows = [*reviews(190), *((f"seldom seen {i}", f"rare{i // 2}") for i in range(12))]
    path = write(tmp_path / "t.csv", [("text", "label"), *rows])
    message = refused(path)
    assert "'rare" in message and "--rare drop, merge or keep" in message and "label: 'label' (named so)" in message
    for how, n, classes in (("drop", 190, 2), ("merge", 202, 3), ("keep", 202, 8)):
        message, task = init(path, "--rare", how)
        assert f"{n} labelled texts" in message and f"{classes} classes" in message and task["rare"] == how
        made = plan.make(Study.read(tmp_path / "out.yaml"))
        (step,) = made.of_stage("texts")
        record = json.loads((execute(step, store.Store(), Watch()) / "record.json").read_text())
        assert len(record["labels"]) == classes and min(record["classes"]["train"]) > 0


# -- how files are written


GERMAN = [("text", "label"), *reviews(120, ("schlecht", "gut"))]


@pytest.mark.parametrize(
    ("name", "write_as", "option"),
    [
        ("t.csv", {"delimiter": ";"}, ("--delimiter", ";")),
        ("t.csv", {"delimiter": "\t"}, ("--delimiter", "tab")),
        ("t.csv", {"delimiter": "|"}, ("--delimiter", "|")),
        ("t.tsv", {"delimiter": "\t", "quoting": csv.QUOTE_ALL}, ("--quotes",)),
        ("t.tsv", {"delimiter": ","}, ("--delimiter", ",")),
    ],
    ids=["semicolon", "tabs", "bars", "quoted tsv", "commas in a tsv"],
)
def test_another_dialect_is_noticed_and_the_option_that_is_named_reads_it(name, write_as, option, tmp_path):
    path = write(tmp_path / name, GERMAN, **write_as)
    assert option[0] in refused(path)
    message, task = init(path, *option)
    assert '"schlecht" 60' in message and (task["text"], task["label"]) == (["text"], "label")
    made = sources.read(Study.read(tmp_path / "out.yaml").resolved_task())
    assert made.labels == ("gut", "schlecht") and made.labelled["train"][0][0] == (GERMAN[1][0],)


def test_a_quoted_line_break_of_a_tsv_names_the_option(tmp_path):
    path = write(tmp_path / "t.tsv", [*GERMAN, ("two\nlines", "gut")], delimiter="\t")
    assert "--quotes (task.quotes: true)" in refused(path)
    assert "121 labelled texts" in init(path, "--quotes")[0]
    with pytest.raises(TextError, match=r"line 122: 1 fields, expected text,label; where cells are quoted, read it with --quotes"):
        sources.read(task_of(train=str(path)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("sep=;\n" + "\n".join(";".join(row) for row in GERMAN), "sep"),
        ("\ufeff" + "\r".join(",".join(row) for row in GERMAN), "old Mac"),
        ("\n".join(",".join(row) + ",," for row in GERMAN), "Excel's trailing commas"),
        ("\r\n".join(",".join(row) for row in GERMAN) + "\r\n\r\n", "Windows"),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_what_a_file_says_of_itself_is_read(content, name, tmp_path):
    (tmp_path / "t.csv").write_text(content, encoding="utf-8", newline="")
    message, task = init(tmp_path / "t.csv")
    assert '120 labelled texts, 2 classes: "gut" 60, "schlecht" 60' in message and task["label"] == "label"


@pytest.mark.parametrize(
    "rows", [GERMAN[1:], [(k % 4, "a heading", t) for k, (t, _) in enumerate(GERMAN[1:])]], ids=["text first", "class first"]
)
def test_a_first_row_that_looks_like_data_is_no_header_in_silence(rows, tmp_path):
    path = write(tmp_path / "t.csv", rows)
    message = refused(path)
    assert "--no-header" in message and "--header" in message
    message, task = init(path, "--no-header")
    assert "120 labelled texts" in message and task["header"] is False
    assert init(path, "--header", "--rare", "drop")[1]["header"] is True


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1252", "été à la plage"), ("utf-16", "été à la plage"), ("shift_jis", "今日は天気がいい")]
)
def test_another_encoding_is_read_with_the_option_that_is_named(encoding, text, tmp_path):
    rows = [("text", "label"), *((f"{text} {i}", "ab"[i % 2]) for i in range(150))]
    (tmp_path / "t.csv").write_bytes("".join(f"{a},{b}\n" for a, b in rows).encode(encoding))
    assert "--encoding" in refused(tmp_path / "t.csv")
    message, task = init(tmp_path / "t.csv", "--encoding", encoding)
    assert "150 labelled texts" in message and task["encoding"] != "utf-8"
    assert sources.read(Study.read(tmp_path / "out.yaml").resolved_task()).labelled["train"][0][0] == (f"{text} 0",)


# -- names and places


NAMES = [
    "😀 posts.csv",
    "~x.csv",
    "-t.csv",
    "a: b #c.csv",
    "con.csv",
    "'quoted'.csv",
    "movies.csv",
    "hub:x.csv",
    "new\nline.csv",
    "%s{{x}}.csv",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", ["text", "on", "~", "feedback 😀", "a: b", "null"])
def test_any_name_of_a_file_or_a_column_gives_a_study_that_can_be_planned(name, column, tmp_path):
    path = write(tmp_path / name, [(column, "null" if column != "null" else "x"), *reviews(60)])
    code, message = typed("init", "--to", tmp_path / "out.yaml", "--", path)
    assert code == 0, message
    study = Study.read(tmp_path / "out.yaml")
    assert study.task.text == [column] and plan.make(study).of_stage("texts")


def test_a_place_that_cannot_be_written_to_is_said_and_another_is_taken_by_default(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data" / "t.csv", [("text", "label"), *reviews(60)])
    code, message = typed("init", path, "--to", tmp_path / "gone" / "t.yaml")
    assert code == 2 and "cannot be written" in message and "--to" in message
    (tmp_path / "file").write_text("")
    code, message = typed("init", path, "--to", tmp_path / "file" / "t.yaml")
    assert code == 2 and "cannot be written" in message
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "writable", lambda folder: "data" not in str(folder))
    assert typed("init", path)[0] == 0 and (tmp_path / "t.yaml").is_file() and not (tmp_path / "data" / "t.yaml").exists()
    assert plan.make(Study.read(tmp_path / "t.yaml"))


def test_classes_are_shown_in_their_own_letters(tmp_path):
    message, _ = init(write(tmp_path / "t.csv", [("text", "label"), *reviews(60, ("плохо", "好"))]))
    assert '"плохо" 30, "好" 30' in message


def test_a_vocabulary_is_one_that_the_text_supports(tmp_path):
    path = write(tmp_path / "t.csv", [("text", "label"), *((f"это был фильм номер {i}", "ab"[i % 2]) for i in range(200))])
    init(path)
    study = Study.read(tmp_path / "out.yaml")
    made = plan.make(study)
    for stage in ("texts", "tokenizer"):
        (step,) = made.of_stage(stage)
        execute(step, store.Store(), Watch())
    assert study.family is None and 8 <= study.tokenizer.vocabulary < 400


def test_a_file_system_without_locks_is_named_with_the_cure(tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(store.FileLock, "acquire", acquire)
    with (
        pytest.raises(
            store.StoreError, match=r"locks: this file system gives no locks \(No locks available\); set PDSTUDY_OUTPUTS"
        ),
        store.Store(tmp_path).lock("0" * 16),
    ):
        pass
