"""Text to word pieces: a vocabulary found, a tokenizer opened, texts cut and written as they come."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pdstudy.data.batches import Ids, Vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # in the order in which a new vocabulary holds them
AT_ONCE = 4096  # texts, cut by the tokenizer's threads side by side


def train_word_pieces(texts: Iterable[str], vocabulary: int):
    """Return a `tokenizers.Tokenizer` of BERT's kind (uncased WordPiece) with `vocabulary` pieces.

    The same texts give the same pieces with the same ids. The trainer alone does not: it numbers the letters
    inside words ("##a") in the order of a hash table with a random key, and breaks ties by those numbers. So
    they are found first, and given to it in alphabetical order: `texts` are gone through twice. Raises ValueError
    when they cannot fill the vocabulary.
    """
    letters = _trained(texts, len(SPECIAL), SPECIAL).get_vocab()
    inside = sorted(piece for piece in letters if piece.startswith("##"))
    pieces = _trained(texts, vocabulary, (*SPECIAL, *inside)).get_vocab()
    if len(pieces) < vocabulary:
        raise ValueError(
            f"D_LM supports only {len(pieces):,} word pieces, fewer than tokenizer.vocabulary "
            f"{vocabulary:,}; give more text or a smaller vocabulary"
        )
    if len(pieces) > vocabulary:
        raise ValueError(
            f"D_LM has {len(pieces):,} letters, more than tokenizer.vocabulary {vocabulary:,}; give a larger vocabulary"
        )
    return _untrained(pieces)


def _trained(texts: Iterable[str], vocabulary: int, special: Sequence[str]):
    from tokenizers import trainers

    tokenizer = _untrained({})
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=list(special), show_progress=False)
    )
    return tokenizer


def _untrained(pieces: dict[str, int]):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def save_tokenizer(pieces: dict[str, int], folder: Path, max_length: int = 512) -> None:
    """Write a folder that `AutoTokenizer.from_pretrained` opens as an uncased BERT tokenizer."""
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(vocab=pieces, do_lower_case=True, model_max_length=max_length)
    if len(tokenizer) != len(pieces):  # transformers 5 has ignored a vocabulary in silence before
        raise ValueError(f"the saved tokenizer holds {len(tokenizer)} pieces, not {len(pieces)}")
    tokenizer.save_pretrained(folder)


def open_tokenizer(folder: Path):
    """Return (tokenizer, Vocabulary) of a folder with a tokenizer.json or a vocab.txt. Raises ValueError if special pieces lack."""
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")).backend_tokenizer
    else:
        lower = bool(_read_json(folder / "tokenizer_config.json").get("do_lower_case", True))
        tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=lower).backend_tokenizer
        n = (folder / "vocab.txt").read_bytes().rstrip(b"\n").count(b"\n") + 1
        if tokenizer.get_vocab_size() != n:  # transformers 5 has ignored a vocabulary in silence before
            raise ValueError(
                f"{folder}: the tokenizer holds {tokenizer.get_vocab_size():,} pieces, its vocab.txt {n:,}; is one there twice?"
            )
    if missing := [piece for piece in SPECIAL if tokenizer.token_to_id(piece) is None]:
        raise ValueError(f"{folder}: the tokenizer has no {missing[0]} piece; it is not BERT's kind")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, vocabulary_of(tokenizer)


def vocabulary_of(tokenizer) -> Vocabulary:
    """Return how many pieces a tokenizer has, and which are special."""
    return Vocabulary(tokenizer.get_vocab_size(), *map(tokenizer.token_to_id, SPECIAL))


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def continues(tokenizer) -> np.ndarray:
    """Return which pieces continue a word ("##ing"), (vocabulary,) bool."""
    marks = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    marks[[i for piece, i in tokenizer.get_vocab().items() if piece.startswith("##")]] = True
    return marks


def encode_texts(tokenizer, vocabulary: Vocabulary, texts: Sequence, max_length: int | None) -> tuple[Ids, dict[str, int]]:
    """Return (ids, counts) of texts, or of pairs of texts.

    With `max_length` each text is [CLS] pieces [SEP], a pair [CLS] pieces [SEP] pieces [SEP], cut to that many
    pieces (counted), of a pair the longer text first; without, each text is its pieces and a closing [SEP], whole.
    Counts: pieces, unknown pieces, texts truncated.
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
                pieces = [p[:n] for p, n in zip(pieces, _fitting([*map(len, pieces)], room), strict=True)]
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
    """Cut texts into word pieces, batch by batch, into the files that `Ids.load` maps; see `encode_texts`.

    No more than a batch is held in memory. Returns (counts, how often each piece of the vocabulary stands there).
    """
    counts: Counter[str] = Counter(texts=0, pieces=0, unknown=0, truncated=0)
    seen = np.zeros(vocabulary.size, dtype=np.int64)
    with ExitStack() as stack:
        files: dict[str, Growing] = {}
        for batch in batches:
            ids, found = encode_texts(tokenizer, vocabulary, batch, max_length)
            starts = ids.starts[1:] + counts["pieces"] if counts["texts"] else ids.starts
            for part, array in (("ids", ids.flat), ("starts", starts), ("second", ids.second)):
                if array is not None:
                    if part not in files:
                        files[part] = stack.enter_context(Growing(folder / f"{name}.{part}.npy", array.dtype))
                    files[part].append(array)
            counts.update(found)
            seen += np.bincount(ids.flat, minlength=vocabulary.size)
    if not files:
        encode_texts(tokenizer, vocabulary, [], max_length)[0].save(folder, name)
    return dict(counts), seen


class Growing:
    """An .npy file of one dimension that grows; closed, it holds what `np.save` would have written."""

    def __init__(self, path: Path, dtype: np.dtype):
        self.path, self.dtype, self.n = path, dtype, 0

    def __enter__(self):
        self.file = self.path.open("wb")
        self._head()
        return self

    def append(self, array: np.ndarray) -> None:
        """Write further numbers, (n,)."""
        self.file.write(np.ascontiguousarray(array, dtype=self.dtype).data)
        self.n += len(array)

    def __exit__(self, *_):
        self.file.seek(0)
        self._head()
        self.file.close()

    def _head(self) -> None:
        """Write the header, which numpy pads to one length for any number of items."""
        facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)), "fortran_order": False, "shape": (self.n,)}
        np.lib.format.write_array_header_1_0(self.file, facts)


def _fitting(lengths: list[int], room: int) -> list[int]:
    """Return to how many pieces each text is cut so that together they fit: the longer one first, as transformers cuts."""
    if len(lengths) == 1 or sum(lengths) <= room:
        return [min(n, room) for n in lengths]
    short, long = sorted(lengths)
    if short > room // 2:
        short, long = room // 2, room // 2 + room % 2
    else:
        long = room - short
    return [short, long] if lengths[0] <= lengths[1] else [long, short]
