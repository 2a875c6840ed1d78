import json
import math

import numpy as np
import pytest
from transformers import AutoTokenizer

from pdstudy.tokens import (
    MASKING,
    ORDER,
    Batches,
    Ids,
    Rows,
    Vocabulary,
    by_length,
    encode_texts,
    mask_rows,
    open_tokenizer,
    padded,
    save_tokenizer,
    stream,
    train_word_pieces,
)

V = Vocabulary(1000)
TEXTS = ["The cat sat on the mat.", "A dog's life is a dog's life!", "the mat, the cat and the dog", "lives of cats"] * 3


def ids_of(*texts):
    return Ids(np.concatenate(texts).astype(np.uint16), np.cumsum([0, *map(len, texts)]))


def running_text(n):
    return (np.arange(n) % 900 + 5).astype(np.uint16)


# -- random streams


def test_a_stream_is_a_function_of_seed_purpose_and_step_alone():
    first = stream(3, ORDER, 7).integers(1 << 40, size=4).tolist()
    stream(3, ORDER, 6).random(1000)
    assert stream(3, ORDER, 7).integers(1 << 40, size=4).tolist() == first
    others = [stream(*key).integers(1 << 40, size=4).tolist() for key in ((4, ORDER, 7), (3, MASKING, 7), (3, ORDER, 8))]
    assert first not in others


# -- masking


@pytest.fixture(scope="module")
def masked():
    rows = Rows(running_text(50_000), 64, 0, V).batch(0, 200)
    rows[:, 10], rows[:, 20] = V.sep, V.unk
    return rows, *mask_rows(rows, 0.15, V, stream(0, MASKING, 0))


def test_exactly_the_asked_share_of_maskable_positions_is_masked(masked):
    rows, _, positions, _ = masked
    assert len(positions) == len(set(positions.tolist())) == round(0.15 * 200 * (64 - 3))


def test_special_pieces_are_never_masked_nor_drawn_at_random(masked):
    rows, inputs, positions, pieces = masked
    assert pieces.min() >= 5
    changed = inputs.reshape(-1)[positions]
    assert set(changed[changed < 5]) == {V.mask}


def test_positions_and_pieces_recover_the_original(masked):
    rows, inputs, positions, pieces = masked
    restored = inputs.reshape(-1).copy()
    restored[positions] = pieces
    assert np.array_equal(restored.reshape(rows.shape), rows)


def test_80_percent_are_masked_10_random_10_kept(masked):
    _, inputs, positions, pieces = masked
    now, n = inputs.reshape(-1)[positions], len(positions)
    for found, share in (((now == V.mask).sum(), 0.8), ((now == pieces).sum(), 0.1), (((now != V.mask) & (now != pieces)).sum(), 0.1)):
        assert abs(found - share * n) < 5 * math.sqrt(n * share * (1 - share))  # the draw is fixed: this cannot flicker


def test_masking_leaves_the_batch_given_as_it_was():
    rows = Rows(running_text(500), 16, 0, V).batch(0, 4)
    before = rows.copy()
    mask_rows(rows, 0.5, V, stream(0, MASKING, 0))
    assert np.array_equal(rows, before)


def test_a_batch_without_maskable_positions_masks_nothing():
    rows = np.array([[V.cls, V.sep, V.unk, V.sep]])
    inputs, positions, pieces = mask_rows(rows, 0.15, V, stream(0, MASKING, 0))
    assert np.array_equal(inputs, rows)
    assert len(positions) == len(pieces) == 0


# -- rows of running text


def test_rows_are_a_function_of_the_step():
    text = running_text(1000)
    wanted = Rows(text, 16, 5, V).batch(40, 8)
    again = Rows(text, 16, 5, V)
    for step in (90, 3, 41):
        again.batch(step, 8)
    assert np.array_equal(again.batch(40, 8), wanted)
    assert not np.array_equal(Rows(text, 16, 6, V).batch(40, 8), wanted)


def test_every_row_begins_with_cls_and_goes_on_with_running_text():
    rows = Rows(running_text(800), 16, 0, V).batch(2, 10)
    assert rows.shape == (10, 16)
    assert (rows[:, 0] == V.cls).all()
    assert (np.diff(rows[:, 1:]) == 1).all()


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_each_epoch_reads_each_row_once(epoch):
    rows = Rows(running_text(500), 11, 3, V)
    starts = [int(rows.batch(epoch * rows.per_epoch + i, 1)[0, 1]) for i in range(rows.per_epoch)]
    assert sorted(starts) == list(range(min(starts), min(starts) + 10 * rows.per_epoch, 10))


def test_epochs_differ_in_order_and_in_cut():
    rows = Rows(running_text(800), 11, 3, V)
    n = rows.per_epoch
    first, second = ([int(rows.batch(e * n + i, 1)[0, 1]) for i in range(n)] for e in (0, 1))
    assert (min(first) % 10, np.argsort(first).tolist()) != (min(second) % 10, np.argsort(second).tolist())
    assert len({min(rows.batch(e, n)[:, 1]) for e in range(8)}) > 1


@pytest.mark.parametrize("shift_seed", range(12))
def test_the_last_row_never_runs_past_the_text(shift_seed):
    rows = Rows(running_text(31), 16, shift_seed, V)  # the shortest text allowed: 2 x 16 - 1
    assert rows.per_epoch == 1
    assert (np.diff(rows.batch(0, 5)[:, 1:]) == 1).all()


def test_a_corpus_of_less_than_two_rows_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"30 pieces, fewer than two rows of 16.*longer D_LM or a shorter pretrain\.row"):
        Rows(running_text(30), 16, 0, V)


# -- batches of texts


def texts_of_lengths(*lengths):
    return ids_of(*(np.full(n, 10 + i) for i, n in enumerate(lengths)))


@pytest.mark.parametrize("epoch", [0, 1])
def test_every_text_is_read_once_an_epoch_with_its_own_target(epoch):
    ids = texts_of_lengths(*(3 + i % 7 for i in range(25)))
    batches = Batches(ids, np.arange(25) * 100, 4, 0, V.pad)
    assert batches.per_epoch == 7
    read = []
    for step in range(7):
        pieces, _, targets = batches.batch(epoch * 7 + step)
        read += targets.tolist()
        assert [(row[0] - 10) * 100 for row in pieces.tolist()] == targets.tolist()
    assert sorted(read) == [i * 100 for i in range(25)]


def test_epochs_come_in_another_order():
    batches = Batches(texts_of_lengths(*[5] * 40), np.arange(40), 4, 0, V.pad)
    first, second = (np.concatenate([batches.batch(e * 10 + i)[2] for i in range(10)]).tolist() for e in (0, 1))
    assert first != second


def test_two_arms_with_one_seed_read_the_texts_in_one_order():
    ids = texts_of_lengths(*(3 + i % 7 for i in range(30)))
    one, two = Batches(ids, np.arange(30), 8, 9, V.pad), Batches(ids, np.random.default_rng(0).random((30, 2)), 8, 9, V.pad)
    for step in (5, 0, 3):
        assert np.array_equal(one.batch(step)[0], two.batch(step)[0])
    other = Batches(ids, np.arange(30), 8, 10, V.pad)
    assert any(one.batch(s)[2].tolist() != other.batch(s)[2].tolist() for s in range(4))


def test_texts_are_padded_on_the_right_and_the_mask_is_true_on_pieces():
    out, mask = padded(texts_of_lengths(2, 4, 1), np.array([2, 1, 0]), pad=0)
    assert out.tolist() == [[12, 0, 0, 0], [11, 11, 11, 11], [10, 10, 0, 0]]
    assert mask.tolist() == [[True, False, False, False], [True] * 4, [True, True, False, False]]


def test_texts_of_one_length_need_no_mask():
    out, mask = padded(texts_of_lengths(3, 5, 3), np.array([2, 0]), pad=0)
    assert out.tolist() == [[12, 12, 12], [10, 10, 10]]
    assert mask is None


def test_batches_by_length_pad_far_less_than_random_ones():
    lengths = np.random.default_rng(0).integers(5, 60, size=640)
    filled = sum(lengths[b].max() * len(b) for b in by_length(lengths, 16, np.random.default_rng(1)))
    assert filled / lengths.sum() < 1.1


def test_ids_saved_are_read_back_memory_mapped(tmp_path):
    ids = texts_of_lengths(2, 4, 1)
    ids.save(tmp_path, "dev")
    again = Ids.load(tmp_path, "dev")
    assert isinstance(again.flat, np.memmap)
    assert (again.flat.tolist(), again.lengths.tolist()) == (ids.flat.tolist(), [2, 4, 1])
    assert (len(again.head(2)), again.head(2).flat.tolist()) == (2, [10, 10, 11, 11, 11, 11])


# -- word pieces


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    tokenizer = train_word_pieces(TEXTS, 64)
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer.get_vocab(), folder)
    return tokenizer, folder


def test_a_trained_tokenizer_has_the_pieces_asked_for_and_the_special_ones_first(trained):
    tokenizer, _ = trained
    assert tokenizer.get_vocab_size() == 64
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_training_twice_gives_the_same_pieces_with_the_same_numbers(trained, fresh_python):
    tokenizer, _ = trained
    assert train_word_pieces(TEXTS, 64).get_vocab() == tokenizer.get_vocab()
    code = f"import json; from pdstudy.tokens import train_word_pieces as t; print(json.dumps(t({TEXTS!r}, 64).get_vocab()))"
    assert json.loads(fresh_python(code)) == tokenizer.get_vocab()


def test_a_saved_tokenizer_opens_in_transformers_with_identical_ids(trained):
    tokenizer, folder = trained
    theirs = AutoTokenizer.from_pretrained(folder)
    ours, vocabulary = open_tokenizer(folder)
    assert vocabulary == Vocabulary(64)
    for text in (*TEXTS[:4], "The CAT’s naïve café", "[MASK] [CLS]", "x" * 200, ""):
        wanted = theirs(text)["input_ids"]
        ids, _ = encode_texts(ours, vocabulary, [text], 512)
        assert ids.flat.tolist() == wanted
        if "[" not in text:
            assert tokenizer.encode(text, add_special_tokens=False).ids == wanted[1:-1]


def test_a_folder_with_only_a_vocab_txt_opens_with_identical_ids(trained, tmp_path):
    tokenizer, folder = trained
    pieces = tokenizer.get_vocab()
    (tmp_path / "vocab.txt").write_text("".join(f"{p}\n" for p in sorted(pieces, key=pieces.get)))
    ours, vocabulary = open_tokenizer(tmp_path)
    assert vocabulary == Vocabulary(64)
    assert encode_texts(ours, vocabulary, TEXTS, 16)[0].flat.tolist() == encode_texts(*open_tokenizer(folder), TEXTS, 16)[0].flat.tolist()


def test_a_tokenizer_without_a_mask_is_refused(trained, tmp_path):
    save_tokenizer(trained[0].get_vocab(), tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("[MASK]", "[MUSK]"))
    with pytest.raises(ValueError, match=r"no \[MASK\] piece"):
        open_tokenizer(tmp_path)


def test_a_vocabulary_too_large_for_the_text_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"D_LM supports only \d+ word pieces, fewer than tokenizer.vocabulary 5,000; give more text"):
        train_word_pieces(TEXTS, 5000)


def test_a_vocabulary_too_small_for_the_characters_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"characters of D_LM alone are \d+ word pieces, more than tokenizer.vocabulary 10; .* larger"):
        train_word_pieces(TEXTS, 10)


def test_texts_are_cut_to_the_length_and_the_cut_is_counted(trained):
    tokenizer, vocabulary = open_tokenizer(trained[1])
    ids, counts = encode_texts(tokenizer, vocabulary, ["the cat the cat the cat", "the cat"], 6)
    the, cat = tokenizer.token_to_id("the"), tokenizer.token_to_id("cat")
    assert ids.flat.tolist() == [2, the, cat, the, cat, 3, 2, the, cat, 3]
    assert ids.starts.tolist() == [0, 6, 10]
    assert counts == {"texts": 2, "pieces": 10, "unknown": 0, "truncated": 1}


def test_a_text_that_just_fits_is_not_counted_as_cut(trained):
    assert encode_texts(*open_tokenizer(trained[1]), ["the cat the cat"], 6)[1]["truncated"] == 0


def test_documents_are_kept_whole_and_closed_by_sep(trained):
    tokenizer, vocabulary = open_tokenizer(trained[1])
    ids, counts = encode_texts(tokenizer, vocabulary, ["the cat " * 50, "dog"], None)
    assert ids.lengths.tolist()[0] == 101
    assert ids.flat[100] == ids.flat[-1] == vocabulary.sep
    assert vocabulary.cls not in ids.flat
    assert counts["truncated"] == 0


def test_what_the_vocabulary_cannot_spell_is_unknown_and_counted(trained):
    ids, counts = encode_texts(*open_tokenizer(trained[1]), ["the 猫 cat", "ж"], 16)
    assert counts["unknown"] == 2
    assert ids.flat.tolist().count(1) == 2


def test_an_empty_text_is_two_special_pieces(trained):
    assert encode_texts(*open_tokenizer(trained[1]), [""], 16)[0].flat.tolist() == [2, 3]
