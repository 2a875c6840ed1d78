"""Word pieces: the same texts give the same vocabulary, a tokenizer gives the ids that transformers gives."""

import json

import numpy as np
import pytest

from pdstudy.data import tokenizer as wordpieces
from pdstudy.data.batches import Ids, Vocabulary, padded

TEXTS = ["the old film is good", "the new film is bad", "a good old story", "bad new films are old", "the story is good"] * 4


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return (folder, tokenizer, vocabulary) of 40 word pieces trained on a few sentences."""
    folder = tmp_path_factory.mktemp("tokenizer")
    wordpieces.save_tokenizer(wordpieces.train_word_pieces(TEXTS, 40).get_vocab(), folder)
    return folder, *wordpieces.open_tokenizer(folder)


def test_a_new_vocabulary_has_the_asked_size_and_the_special_pieces_in_front(opened):
    _, tokenizer, vocabulary = opened
    assert vocabulary == Vocabulary(size=40)
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_training_word_pieces_twice_gives_the_same_vocabulary():
    assert wordpieces.train_word_pieces(TEXTS, 40).get_vocab() == wordpieces.train_word_pieces(TEXTS, 40).get_vocab()


def test_auto_tokenizer_opens_the_saved_folder_and_gives_the_same_ids(opened):
    from transformers import AutoTokenizer

    folder, tokenizer, vocabulary = opened
    texts = ["The OLD film!", "good", "née Zoë ... films", ""]
    ids, _ = wordpieces.encode_texts(tokenizer, vocabulary, texts, 16)
    theirs = AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    assert [ids.flat[a:b].tolist() for a, b in zip(ids.starts, ids.starts[1:], strict=False)] == theirs


def test_pairs_have_the_ids_and_segments_that_transformers_gives_them_at_every_length(opened, tmp_path):
    from transformers import AutoTokenizer

    folder, tokenizer, vocabulary = opened
    pairs = [("good " * a, "bad film " * b) for a, b in [(1, 1), (9, 1), (1, 9), (5, 2), (4, 3), (3, 3), (0, 2), (20, 20), (7, 2)]]
    for length in (8, 9, 12, 64):
        ids, counts = wordpieces.encode_texts(tokenizer, vocabulary, pairs, length)
        theirs = AutoTokenizer.from_pretrained(folder)(*map(list, zip(*pairs, strict=True)), truncation=True, max_length=length)
        assert [ids.flat[a:b].tolist() for a, b in zip(ids.starts, ids.starts[1:], strict=False)] == theirs["input_ids"]
        segments = [padded(ids, np.array([i]), 0)[2][0].tolist() for i in range(len(pairs))]
        assert segments == theirs["token_type_ids"]
        untruncated = wordpieces.encode_texts(tokenizer, vocabulary, pairs, 512)[0]
        assert counts["truncated"] == (untruncated.lengths > length).sum()
    ids.save(tmp_path, "pairs")
    assert (Ids.load(tmp_path, "pairs").second == ids.second).all()


def test_a_vocabulary_larger_than_the_text_supports_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"supports only \d+ word pieces, fewer than tokenizer.vocabulary 5,000; give more text"):
        wordpieces.train_word_pieces(TEXTS, 5000)


def test_a_folder_with_only_a_vocab_txt_gives_its_lines_as_ids(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    tokenizer, vocabulary = wordpieces.open_tokenizer(tmp_path)
    ids, _ = wordpieces.encode_texts(tokenizer, vocabulary, ["Good films"], 16)
    assert ids.flat.tolist() == [2, 5, 6, 7, 3]
    assert vocabulary == Vocabulary(size=8)


def test_a_tokenizer_without_a_mask_piece_is_refused_by_name(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4}, unk_token="[UNK]")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ValueError, match=r"the tokenizer has no \[MASK\] piece"):
        wordpieces.open_tokenizer(tmp_path)


def test_texts_are_closed_by_cls_and_sep_and_cut_ones_are_counted(opened):
    _, tokenizer, vocabulary = opened
    ids, counts = wordpieces.encode_texts(tokenizer, vocabulary, ["a a a", "a a a a", ""], 5)
    a = tokenizer.token_to_id("a")
    assert ids.flat.tolist() == [2, a, a, a, 3, 2, a, a, a, 3, 2, 3]
    assert ids.lengths.tolist() == [5, 5, 2]
    assert counts == {"texts": 3, "pieces": 12, "unknown": 0, "truncated": 1}


def test_documents_stay_whole_and_end_in_sep_and_unknown_pieces_are_counted(opened):
    _, tokenizer, vocabulary = opened
    a = tokenizer.token_to_id("a")
    ids, counts = wordpieces.encode_texts(tokenizer, vocabulary, ["a a a a a a", "猫"], None)
    assert ids.flat.tolist() == [a] * 6 + [3, 1, 3]
    assert counts == {"texts": 2, "pieces": 9, "unknown": 1, "truncated": 0}


def test_a_fresh_process_trains_the_same_vocabulary(fresh_python):
    code = (
        f"import json; from pdstudy.data.tokenizer import train_word_pieces as t; print(json.dumps(t({TEXTS!r}, 40).get_vocab()))"
    )
    assert json.loads(fresh_python(code)) == wordpieces.train_word_pieces(TEXTS, 40).get_vocab()


def test_a_vocabulary_smaller_than_the_letters_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"more than tokenizer.vocabulary 10; give a larger vocabulary"):
        wordpieces.train_word_pieces(TEXTS, 10)


def test_no_texts_are_no_ids(tmp_path):
    tokenizer = wordpieces.train_word_pieces(TEXTS, 50)
    ids, counts = wordpieces.encode_texts(tokenizer, Vocabulary(50), [], 16)
    ids.save(tmp_path, "none")
    assert len(Ids.load(tmp_path, "none")) == 0 and counts["texts"] == 0


def test_pieces_that_continue_a_word_are_known_by_their_mark():
    trained = wordpieces.train_word_pieces(TEXTS, 40)
    continues = wordpieces.continues(trained)
    assert all(continues[i] == piece.startswith("##") for piece, i in trained.get_vocab().items())
    assert continues.any() and not continues.all()


# Written as they come

PAIRS = [("good " * a, "bad film " * b) for a, b in [(1, 1), (9, 1), (1, 9), (3, 3), (0, 2), (20, 20)]]


@pytest.mark.parametrize(("texts", "length"), [(TEXTS, None), (TEXTS, 6), (PAIRS, 12), ([], 12), ([], None), ([""], None)])
@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_texts_written_in_batches_are_the_files_of_all_at_once(opened, tmp_path, texts, length, at_once):
    _, tokenizer, vocabulary = opened
    batches = (texts[i : i + at_once] for i in range(0, len(texts), at_once))
    counts, seen = wordpieces.write_texts(tmp_path, "new", tokenizer, vocabulary, batches, length)
    ids, expected = wordpieces.encode_texts(tokenizer, vocabulary, texts, length)
    ids.save(tmp_path, "old")
    parts = {path.name.removeprefix("old.") for path in tmp_path.glob("old.*")}
    assert parts == {path.name.removeprefix("new.") for path in tmp_path.glob("new.*")}
    assert all((tmp_path / f"new.{part}").read_bytes() == (tmp_path / f"old.{part}").read_bytes() for part in parts)
    assert counts == expected and seen.tolist() == np.bincount(ids.flat, minlength=vocabulary.size).tolist()


def test_a_growing_file_has_the_header_of_any_length(tmp_path):
    for n in (0, 9, 10, 12_345):
        with wordpieces.GrowingArray(tmp_path / "new.npy", np.dtype(np.uint16)) as file:
            for part in np.array_split(np.arange(n), 3):
                file.append(part)
        np.save(tmp_path / "old.npy", np.arange(n, dtype=np.uint16))
        assert (tmp_path / "new.npy").read_bytes() == (tmp_path / "old.npy").read_bytes()
