"""Word pieces for text of any script: the tokenizer of the user's own files.

Accents and vowel signs stay, because in most languages they distinguish words. Scripts without spaces are cut by character, and
emoji are separated (`scripts`), so that no run of letters is too long for a word piece. Letters become lower case, and what NFKC
treats as equal is equal, as for repeats.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from pdstudy.data.scripts import APART
from pdstudy.data.tokenizer import SPECIAL, check_support, trained_pieces
from pdstudy.sizes import POSITIONS

LONGEST_WORD = 1000  # characters; with BERT's 100 a long address becomes one unknown piece
MARK = "##"
# In ASCII: tokenizers 0.22 panics when it prints a pattern of other letters.
PATTERN = "".join(c if c.isascii() else f"\\x{{{ord(c):x}}}" for c in APART)


def blank(pieces: dict[str, int]):
    """Return a `tokenizers.Tokenizer` (WordPiece, with accents and marks) that has these pieces."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace(Regex("[\x00-\x1f\x7f-\x9f\ufeff]"), " "),
            normalizers.Lowercase(),
            normalizers.NFKC(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(PATTERN), "isolated")]
    )
    return tokenizer


def train(texts: Iterable[str], vocabulary: int):
    """Return a `tokenizers.Tokenizer` with `vocabulary` pieces; the same texts give the same pieces with the same ids.

    `texts` is iterated three times. If the vocabulary is too small for all letters, the rarest are left out and are unknown.
    Raises ValueError if the texts support fewer pieces.
    """
    pieces = supported(texts, vocabulary)
    check_support(len(pieces), vocabulary)
    return blank(pieces)


def supported(texts: Iterable[str], vocabulary: int) -> dict[str, int]:
    """Return the pieces that the texts support with their ids, at most `vocabulary` of them."""
    # The letters come first and in order, as in tokenizer.train_word_pieces, because the trainer numbers them in no fixed order.
    pieces = trained_pieces(blank({}), texts, len(SPECIAL))
    alphabet = _alphabet(pieces, texts, vocabulary - len(SPECIAL))
    inside = sorted(piece for piece in pieces if piece.startswith(MARK) and piece.removeprefix(MARK) in alphabet)
    return trained_pieces(blank({}), texts, vocabulary, inside, alphabet)


def _alphabet(pieces: dict[str, int], texts: Iterable[str], room: int) -> list[str]:
    """Return the letters whose pieces, alone and inside a word, fit into `room` pieces; the rarest are left out."""
    n_pieces = Counter(piece.removeprefix(MARK) for piece in pieces if piece not in SPECIAL)
    if n_pieces.total() <= room:
        return sorted(n_pieces)
    normalizer, counts = blank({}).normalizer, Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    chosen = []
    for letter in sorted(n_pieces, key=lambda letter: (-counts[letter], letter)):
        room -= n_pieces[letter]
        if room < 0:
            break
        chosen.append(letter)
    return sorted(chosen)


def save(tokenizer, folder: Path) -> None:
    """Write a folder that `AutoTokenizer.from_pretrained` opens."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


def is_own(tokenizer) -> bool:
    """Return whether a tokenizer was made by this module: whether it cuts Thai by character."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str("\u0e01\u0e02")) == 2


def missing(tokenizer, texts: Iterable[str], most: int = 2000) -> list[str]:
    """Return the characters of the first texts that a tokenizer has no piece for, the most frequent first."""
    counts = Counter(c for text in islice(texts, most) for c in "".join(text))
    characters = (c for c, _ in counts.most_common() if not c.isspace())
    return [c for c in characters if tokenizer.token_to_id("[UNK]") in tokenizer.encode(c, add_special_tokens=False).ids]
