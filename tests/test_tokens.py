"""Masking, rows and batches: every random choice is a function of (seed, what, step)."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from pdstudy.data import batches as tokens
from pdstudy.data.batches import MASKING, ORDER, Batches, Ids, Rows, Vocabulary, stream
from pdstudy.data.masking import mask_rows

WORDS = Vocabulary(size=105)  # 5 special pieces and 100 others


def texts_of(lengths: list[int]) -> Ids:
    """Return texts of these lengths; text i is made of the piece 5 + i alone."""
    flat = np.concatenate([np.full(n, 5 + i, dtype=np.uint16) for i, n in enumerate(lengths)])
    return Ids(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def some_rows(n_rows: int = 200, length: int = 50) -> np.ndarray:
    """Return rows of ordinary pieces with [CLS] in front and a [SEP] and an [UNK] in the middle."""
    rows = np.random.default_rng(7).integers(5, WORDS.size, size=(n_rows, length))
    rows[:, 0], rows[:, 20], rows[:, 30] = WORDS.cls, WORDS.sep, WORDS.unk
    return rows


# Streams


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    expected = stream(3, MASKING, 8).random(4)
    stream(3, MASKING, 7).random(1000)
    assert (stream(3, MASKING, 8).random(4) == expected).all()


@pytest.mark.parametrize("other", [(4, MASKING, 8), (3, ORDER, 8), (3, MASKING, 9)], ids=["seed", "purpose", "step"])
def test_streams_of_another_seed_purpose_or_step_differ(other):
    assert not (stream(*other).random(4) == stream(3, MASKING, 8).random(4)).any()


# Masking


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.4])
def test_masking_chooses_exactly_the_asked_share_of_the_maskable_positions(rate):
    rows = some_rows()
    _, positions, _ = mask_rows(rows, rate, WORDS, stream(0, MASKING, 0))
    assert len(positions) == len(set(positions.tolist())) == round(rate * 200 * 47)


def test_masking_never_chooses_a_special_piece():
    rows = some_rows()
    _, positions, pieces = mask_rows(rows, 0.9, WORDS, stream(0, MASKING, 0))
    assert not set((positions % 50).tolist()) & {0, 20, 30}
    assert pieces.min() >= 5


def test_of_the_masked_80_percent_become_mask_10_a_random_piece_and_10_stay():
    rows = some_rows()
    inputs, positions, pieces = mask_rows(rows, 0.5, WORDS, stream(0, MASKING, 0))
    masked, n = inputs.reshape(-1)[positions], len(positions)
    counts = np.array([(masked == WORDS.mask).sum(), ((masked != pieces) & (masked != WORDS.mask)).sum(), (masked == pieces).sum()])
    share = np.array([0.8, 0.1 * 99 / 100, 0.1 + 0.1 / 100])  # a random piece is the true one in 1 of 100
    assert (abs(counts - n * share) < 4 * np.sqrt(n * share * (1 - share))).all()


def test_a_random_replacement_is_never_a_special_piece_and_may_be_any_other():
    rows = some_rows(n_rows=2000)
    inputs, positions, pieces = mask_rows(rows, 0.5, WORDS, stream(0, MASKING, 0))
    masked = inputs.reshape(-1)[positions]
    replaced = masked[(masked != WORDS.mask) & (masked != pieces)]
    assert set(replaced.tolist()) == set(range(5, 105))


def test_masking_touches_nothing_but_the_chosen_positions_and_the_pieces_restore_the_rows():
    rows = some_rows()
    before = rows.copy()
    inputs, positions, pieces = mask_rows(rows, 0.3, WORDS, stream(0, MASKING, 0))
    restored = inputs.reshape(-1).copy()
    restored[positions] = pieces
    assert (restored.reshape(rows.shape) == before).all()
    assert (rows == before).all()
    assert (inputs != rows).sum() <= len(positions)


def test_rows_of_special_pieces_alone_are_refused_for_their_loss_would_be_no_number():
    with pytest.raises(ValueError, match="none of a batch's 12 pieces can be masked"):
        mask_rows(np.full((3, 4), WORDS.cls), 0.15, WORDS, stream(0, MASKING, 0))


def test_at_least_one_position_is_masked_however_small_the_batch():
    rows = np.array([[WORDS.cls, 7, 8]])
    _, positions, pieces = mask_rows(rows, 0.15, WORDS, stream(0, MASKING, 0))
    assert len(positions) == 1 and pieces == rows.reshape(-1)[positions]


CONTINUES = np.arange(WORDS.size) >= 60  # pieces 60 to 104 continue a word


def words_of(rows: np.ndarray) -> list[set[int]]:
    """Return the words of some rows as sets of flat positions, special pieces left out."""
    words: list[set[int]] = []
    flat, length = rows.reshape(-1), rows.shape[1]
    for i, piece in enumerate(flat):
        if piece < 5:
            continue
        if words and CONTINUES[piece] and i % length and flat[i - 1] >= 5:
            words[-1].add(i)
        else:
            words.append({i})
    return words


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_whole_words_are_masked_or_left_and_no_more_pieces_than_asked(rate):
    rows = some_rows()
    _, positions, pieces = mask_rows(rows, rate, WORDS, stream(0, MASKING, 0), CONTINUES)
    chosen = set(positions.tolist())
    assert all(word <= chosen or not word & chosen for word in words_of(rows))
    asked = round(rate * 200 * 47)
    assert asked - 12 < len(chosen) <= asked
    assert (np.diff(positions) > 0).all() and (rows.reshape(-1)[positions] == pieces).all()


def test_a_word_longer_than_the_share_is_masked_whole():
    rows = np.array([[WORDS.cls, 5, 70, 71, 72]])
    _, positions, _ = mask_rows(rows, 0.15, WORDS, stream(0, MASKING, 0), CONTINUES)
    assert positions.tolist() == [1, 2, 3, 4]


def test_a_small_batch_has_at_least_one_masked_piece():
    _, positions, _ = mask_rows(np.array([[WORDS.cls, 9, 10]]), 0.15, WORDS, stream(0, MASKING, 0))
    assert len(positions) == 1


# Rows


def test_the_rows_of_a_step_depend_on_the_step_alone():
    text = np.arange(5, 105)
    fresh, used = Rows(text, 8, 0, WORDS), Rows(text, 8, 0, WORDS)
    for step in (0, 9, 1):
        used.batch(step, 4)
    for step in (5, 30, 5):
        assert (used.batch(step, 4) == fresh.batch(step, 4)).all()


def test_an_epoch_reads_each_of_its_rows_once_and_another_epoch_at_another_offset():
    text = np.arange(5, 105)  # every piece stands once
    rows = Rows(text, 8, 0, WORDS)
    epochs = [np.concatenate([rows.batch(e * rows.per_epoch + k, 1)[0, 1:] for k in range(rows.per_epoch)]) for e in range(3)]
    for epoch in epochs:
        assert len(epoch) == rows.per_epoch * 7 == len(set(epoch.tolist()))
        assert set(epoch.tolist()) == set(range(epoch.min(), epoch.min() + len(epoch)))  # one running stretch of the text
    assert len({int(e.min()) for e in epochs}) > 1
    assert not (epochs[0] == epochs[1]).all()


def test_every_row_begins_with_cls_and_goes_on_with_running_text():
    rows = Rows(np.arange(5, 105), 8, 0, WORDS).batch(3, 6)
    assert rows.shape == (6, 8)
    assert (rows[:, 0] == WORDS.cls).all()
    assert (np.diff(rows[:, 1:]) == 1).all()


def test_rows_never_run_beyond_the_text_and_leave_at_most_a_row_unread():
    for n in range(15, 40):
        rows = Rows(np.arange(5, 5 + n), 8, 0, WORDS)
        last = max(rows.batch(step, 1).max() for step in range(40 * rows.per_epoch))
        assert 4 + n - 7 <= last <= 4 + n


def test_a_corpus_shorter_than_two_rows_is_refused_with_the_cure():
    assert Rows(np.arange(15), 8, 0, WORDS).per_epoch == 1
    with pytest.raises(ValueError, match=r"14 pieces, fewer than two rows of 8: give a longer D_LM or a shorter pretrain.row"):
        Rows(np.arange(14), 8, 0, WORDS)


# Batches


def test_an_epoch_of_batches_gives_every_text_exactly_once_with_its_target():
    lengths = [3, 9, 4, 4, 7, 2, 9, 3, 5, 6, 4]
    batches = Batches(texts_of(lengths), np.arange(11), size=4, seed=0, pad=0)
    assert batches.per_epoch == 3
    for epoch in range(3):
        seen = []
        for k in range(3):
            ids, _, _, targets = batches.batch(3 * epoch + k)
            assert (ids[:, 0] == 5 + targets).all()
            seen += targets.tolist()
        assert sorted(seen) == list(range(11))


def test_a_batch_is_padded_to_its_longest_text_and_the_mask_marks_the_real_pieces():
    ids, mask, _ = tokens.padded(texts_of([3, 1, 2]), np.array([2, 0]), pad=0)
    assert ids.tolist() == [[7, 7, 0], [5, 5, 5]]
    assert mask.tolist() == [[True, True, False], [True, True, True]]


def test_a_batch_can_be_padded_to_a_multiple_of_a_length():
    ids, mask, _ = tokens.padded(texts_of([3, 1, 2]), np.array([2, 1]), pad=0, multiple=4)
    assert ids.tolist() == [[7, 7, 0, 0], [6, 0, 0, 0]]
    assert mask.sum(axis=1).tolist() == [2, 1]
    assert tokens.padded(texts_of([4, 4]), np.array([0, 1]), pad=0, multiple=4)[1] is None  # nothing to pad


def test_texts_of_equal_length_need_no_mask():
    ids, mask, segments = tokens.padded(texts_of([2, 1, 2]), np.array([2, 0]), pad=0)
    assert ids.tolist() == [[7, 7], [5, 5]]
    assert mask is None and segments is None, "nor do texts that are no pairs need segments"


def test_segments_mark_the_second_text_of_each_pair():
    pairs = dataclasses.replace(texts_of([5, 4]), second=np.array([3, 2]))
    _, _, segments = tokens.padded(pairs, np.array([1, 0]), pad=0)
    assert segments.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]  # on padding they mean nothing
    assert pairs.head(1).second.tolist() == [3]


def test_the_same_seed_gives_the_same_batches_and_another_seed_another_order():
    ids, targets = texts_of(list(range(1, 41))), np.arange(40)
    first, second, other = (Batches(ids, targets, size=5, seed=s, pad=0) for s in (1, 1, 2))
    second.batch(30)  # what was drawn before makes no difference
    order = [[b.batch(step)[3].tolist() for step in range(16)] for b in (first, second, other)]
    assert order[0] == order[1] != order[2]
    assert order[0][:8] != order[0][8:]  # nor is one epoch like the next


def test_batches_hold_texts_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 60, size=400)
    batches = tokens.by_length(lengths, 10, stream(0, ORDER, 0))
    assert max(np.ptp(lengths[index]) for index in batches) <= 6


def test_half_an_epochs_texts_are_the_first_ones_and_nothing_is_copied():
    ids = texts_of([3, 1, 2])
    head = ids.head(2)
    assert (len(head), head.flat.tolist(), head.lengths.tolist()) == (2, [5, 5, 5, 6], [3, 1])
    assert np.shares_memory(head.flat, ids.flat)


def test_ids_come_back_from_disk_memory_mapped_and_unchanged(tmp_path):
    ids = texts_of([3, 1, 2])
    ids.save(tmp_path, "train")
    loaded = Ids.load(tmp_path, "train")
    assert isinstance(loaded.flat, np.memmap)
    assert (loaded.flat == ids.flat).all() and loaded.flat.dtype == np.uint16
    assert (loaded.starts == ids.starts).all()


# A corpus larger than memory


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 1000, 4097])
def test_the_feistel_network_is_a_permutation_and_another_with_other_keys(n):
    keys = [3, 1 << 31, 77, 123456789, 5, 0]
    places = [tokens.permuted(k, n, keys) for k in range(n)]
    assert sorted(places) == list(range(n))
    if n >= 1000:
        others = [tokens.permuted(k, n, keys[::-1]) for k in range(n)]
        assert sum(map(int.__eq__, places, others)) < 20  # 1 expected
        assert abs(np.corrcoef(places, range(n))[0, 1]) < 0.15
        assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.15  # neighbours part


def test_many_rows_are_read_once_an_epoch_in_an_order_that_is_computed(monkeypatch):
    text = np.arange(5, 5 + 9 * 101 + 10, dtype=np.uint16)
    listed = Rows(text, 10, 0, Vocabulary(2000))
    monkeypatch.setattr(tokens, "MOST_PERMUTED", 50)
    rows = Rows(text, 10, 0, Vocabulary(2000))
    assert rows.per_epoch == listed.per_epoch == 101
    epochs = [np.concatenate([rows.batch(i, 1)[:, 1:] for i in range(101 * e, 101 * (e + 1))]) for e in (0, 1)]
    for epoch in epochs:
        starts = sorted(epoch[:, 0])
        assert np.array_equal(np.diff(starts), [9] * 100) and (np.diff(epoch, axis=1) == 1).all()
    assert not np.array_equal(epochs[0], epochs[1])
    assert sorted(epochs[0][:, 0]) == sorted(listed.batch(0, 101)[:, 1])  # the same rows as the listed order takes
    assert np.array_equal(rows.batch(30, 2), Rows(text, 10, 0, Vocabulary(2000)).batch(30, 2))


def test_ten_gigabytes_of_pieces_are_read_in_bounded_memory(tmp_path):
    """The file has holes for pages, so that it takes no disk; what is resident counts as for any other."""
    path = tmp_path / "corpus.npy"
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(5_000_000_000,))
    del made
    script = (
        "import resource, numpy as np; from pdstudy.data import batches\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"text = np.load({str(path)!r}, mmap_mode='r')\n"
        "rows = batches.Rows(text, 64, 0, batches.Vocabulary(8192))\n"
        "for step in range(100): rows.batch(step, 32)\n"
        "print(rows.per_epoch, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    n_rows, grown = map(int, done.stdout.split())
    assert n_rows == 79_365_078 and grown < 130_000, f"{grown / 1000:.0f} MB"
