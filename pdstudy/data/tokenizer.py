"""Word pieces: trains a vocabulary, opens a tokenizer, cuts texts and writes them batch by batch."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pdstudy.data.batches import Ids, Vocabulary
from pdstudy.sizes import POSITIONS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # in the order in which a new vocabulary holds them
AT_ONCE = 4096  # texts that the tokenizer's threads cut in parallel


def train_word_pieces(texts: Iterable[str], vocabulary: int):
    """Return a `tokenizers.Tokenizer` of BERT's kind (uncased WordPiece) with `vocabulary` pieces.

    The same texts give the same pieces with the same ids. The trainer alone does not ensure that: it numbers the letters inside
    words ("##a") in the order of a hash table with a random key, and breaks ties by these numbers. So the letters are found
    first, in a pass of their own, and given to the trainer in alphabetical order. Raises ValueError if the texts do not support
    this number of pieces.
    """
    letters = trained_pieces(_untrained({}), texts, len(SPECIAL))
    inside = sorted(piece for piece in letters if piece.startswith("##"))
    pieces = trained_pieces(_untrained({}), texts, vocabulary, inside)
    check_support(len(pieces), vocabulary)
    if len(pieces) > vocabulary:
        raise ValueError(
            f"D_LM has {len(pieces):,} letters, more than tokenizer.vocabulary {vocabulary:,}; give a larger vocabulary"
        )
    return _untrained(pieces)


def trained_pieces(
    tokenizer, texts: Iterable[str], vocabulary: int, first: Iterable[str] = (), alphabet: Sequence[str] | None = None
) -> dict[str, int]:
    """Return word pieces with their ids, trained with a tokenizer's normaliser: the special ones, then `first`, then others.

    `alphabet` limits their letters.
    """
    from tokenizers import trainers

    limits = {} if alphabet is None else {"initial_alphabet": alphabet, "limit_alphabet": len(alphabet)}
    special = [*SPECIAL, *first]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **limits)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab()


def check_support(n_pieces: int, vocabulary: int) -> None:
    """Raise ValueError if D_LM supports only `n_pieces` word pieces, fewer than `vocabulary`."""
    if n_pieces < vocabulary:
        raise ValueError(
            f"D_LM supports only {n_pieces:,} word pieces, fewer than tokenizer.vocabulary "
            f"{vocabulary:,}; give more text or a smaller vocabulary"
        )


def _untrained(pieces: dict[str, int]):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def save_tokenizer(pieces: dict[str, int], folder: Path) -> None:
    """Write a folder that `AutoTokenizer.from_pretrained` opens as an uncased BERT tokenizer."""
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(vocab=pieces, do_lower_case=True, model_max_length=POSITIONS)
    if len(tokenizer) != len(pieces):  # early versions of transformers 5 ignored a vocabulary silently
        raise ValueError(f"the saved tokenizer holds {len(tokenizer)} pieces, not {len(pieces)}")
    tokenizer.save_pretrained(folder)


def open_tokenizer(folder: Path):
    """Return (tokenizer, Vocabulary) of a folder with a tokenizer.json or a vocab.txt.

    Raises ValueError if a special piece is missing.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        from transformers import BertTokenizerFast

        config = folder / "tokenizer_config.json"
        settings = json.loads(config.read_text()) if config.is_file() else {}
        lower = bool(settings.get("do_lower_case", True))
        tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=lower).backend_tokenizer
        n = (folder / "vocab.txt").read_bytes().rstrip(b"\n").count(b"\n") + 1
        if tokenizer.get_vocab_size() != n:  # early versions of transformers 5 ignored a vocabulary silently
            raise ValueError(
                f"{folder}: the tokenizer holds {tokenizer.get_vocab_size():,} pieces, its vocab.txt {n:,}; is one there twice?"
            )
    if missing := [piece for piece in SPECIAL if tokenizer.token_to_id(piece) is None]:
        raise ValueError(f"{folder}: the tokenizer has no {missing[0]} piece; it is not BERT's kind")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, vocabulary_of(tokenizer)


def vocabulary_of(tokenizer) -> Vocabulary:
    """Return the number of a tokenizer's pieces, and the ids of the special ones."""
    return Vocabulary(tokenizer.get_vocab_size(), *map(tokenizer.token_to_id, SPECIAL))


def continues(tokenizer) -> np.ndarray:
    """Return which pieces continue a word ("##ing"), (vocabulary,) bool."""
    marks = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    marks[[i for piece, i in tokenizer.get_vocab().items() if piece.startswith("##")]] = True
    return marks


def encode_texts(tokenizer, vocabulary: Vocabulary, texts: Sequence, max_length: int | None) -> tuple[Ids, dict[str, int]]:
    """Return (ids, counts) of texts, or of pairs of texts.

    With `max_length` a text becomes [CLS] pieces [SEP] and a pair [CLS] pieces [SEP] pieces [SEP], truncated to that many pieces,
    of a pair the longer text first. Without it a text becomes all its pieces and [SEP]. Counts: texts, pieces, unknown pieces,
    truncated texts.
    """
    dtype = np.uint16 if vocabulary.size <= 65_536 else np.int32
    pairs = bool(len(texts)) and not isinstance(texts[0], str)
    flat, lengths, second, truncated = [], [], [], 0
    for i in range(0, len(texts), AT_ONCE):
        chunk = list(texts[i : i + AT_ONCE])
        columns = zip(*chunk, strict=True) if pairs else [chunk]
        encoded = [tokenizer.encode_batch_fast(list(column), add_special_tokens=False) for column in columns]
        for parts in zip(*encoded, strict=True):
            pieces = [part.ids for part in parts]
            if max_length is not None:
                room = max_length - 1 - len(pieces)
                truncated += sum(map(len, pieces)) > room
                pieces = [p[:n] for p, n in zip(pieces, _truncated_lengths([*map(len, pieces)], room), strict=True)]
            row = [] if max_length is None else [vocabulary.cls]
            for part in pieces:
                row += [*part, vocabulary.sep]
            flat.append(np.array(row, dtype=dtype))
            lengths.append(len(row))
            second.append(len(pieces[0]) + 2)
    ids = Ids(
        np.concatenate(flat) if flat else np.empty(0, dtype),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array(second, dtype=np.int32) if pairs else None,
    )
    unknown = int((ids.flat == vocabulary.unk).sum())
    return ids, {"texts": len(texts), "pieces": len(ids.flat), "unknown": unknown, "truncated": truncated}


def write_texts(
    folder: Path, name: str, tokenizer, vocabulary: Vocabulary, batches: Iterable[Sequence], max_length: int | None
) -> tuple[dict[str, int], np.ndarray]:
    """Return (counts, how often each piece occurs, (vocabulary,)) after cutting texts and writing the files of `Ids.load`.

    Only one batch is in memory at a time. See `encode_texts`.
    """
    counts: Counter[str] = Counter(texts=0, pieces=0, unknown=0, truncated=0)
    piece_counts = np.zeros(vocabulary.size, dtype=np.int64)
    with ExitStack() as stack:
        files: dict[str, GrowingArray] = {}
        for batch in batches:
            ids, batch_counts = encode_texts(tokenizer, vocabulary, batch, max_length)
            starts = ids.starts[1:] + counts["pieces"] if counts["texts"] else ids.starts
            for part, array in (("ids", ids.flat), ("starts", starts), ("second", ids.second)):
                if array is not None:
                    if part not in files:
                        files[part] = stack.enter_context(GrowingArray(folder / f"{name}.{part}.npy", array.dtype))
                    files[part].append(array)
            counts.update(batch_counts)
            piece_counts += np.bincount(ids.flat, minlength=vocabulary.size)
    if not files:
        encode_texts(tokenizer, vocabulary, [], max_length)[0].save(folder, name)
    return dict(counts), piece_counts


class GrowingArray:
    """An .npy file of one dimension to append to. After closing it equals what `np.save` would have written."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype, self.n = path, dtype, 0

    def __enter__(self):
        self.file = self.path.open("wb")
        self._write_header()
        return self

    def append(self, array: np.ndarray) -> None:
        """Write more numbers, (n,)."""
        self.file.write(np.ascontiguousarray(array, dtype=self.dtype).data)
        self.n += len(array)

    def __exit__(self, *_):
        self.file.seek(0)
        self._write_header()
        self.file.close()

    def _write_header(self) -> None:
        """Write the header, whose length does not depend on the number of items because numpy pads it."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)), "fortran_order": False, "shape": (self.n,)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _truncated_lengths(lengths: list[int], room: int) -> list[int]:
    """Return the lengths to which a text, or the two of a pair, is cut so as to fit: the longer one first, as in transformers."""
    if len(lengths) == 1 or sum(lengths) <= room:
        return [min(n, room) for n in lengths]
    short = min(*lengths, room // 2)
    return [short, room - short] if lengths[0] <= lengths[1] else [room - short, short]
