"""Word pieces for text of any script: a vocabulary found in files of one's own.

Accents and vowel signs stay: in most languages they tell words apart, and where they do not they cost a few pieces. Scripts without
spaces are cut by character and emoji stand alone before word pieces are looked for (`scripts`), so that no run of letters is too
long to be read. Letters become small, and what NFKC calls the same is the same: as two texts that differ only so are repeats.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pdstudy.data.scripts import APART
from pdstudy.data.tokenizer import SPECIAL

LONGEST_WORD = 1000  # characters; BERT's 100 turns a long address into one unknown piece
MARK = "##"
# In ASCII: tokenizers 0.22 panics where it shows a pattern of other letters.
PATTERN = "".join(c if c.isascii() else f"\\x{{{ord(c):x}}}" for c in APART)


def blank(pieces: dict[str, int]):
    """Return a `tokenizers.Tokenizer` of WordPiece that keeps marks, with these pieces."""
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

    `texts` are gone through three times. Where the vocabulary has no room for all letters the rarest are left out, and are unknown.
    Raises ValueError where the texts support fewer pieces.
    """
    found = supported(texts, vocabulary)
    if len(found) < vocabulary:
        raise ValueError(
            f"D_LM supports only {len(found):,} word pieces, fewer than tokenizer.vocabulary {vocabulary:,}; give more text or a smaller "
            "vocabulary"
        )
    return blank(found)


def supported(texts: Iterable[str], vocabulary: int) -> dict[str, int]:
    """Return the pieces that texts support, at most `vocabulary` of them, with their numbers."""
    # As in tokenizer.train_word_pieces: the letters are given to the trainer, which numbers them in no fixed order.
    letters = _trained(texts, len(SPECIAL), None, ())
    chosen = _that_fit(letters, texts, vocabulary - len(SPECIAL))
    inside = sorted(piece for piece in letters if piece.startswith(MARK) and piece.removeprefix(MARK) in chosen)
    return _trained(texts, vocabulary, chosen, inside)


def _trained(texts: Iterable[str], vocabulary: int, letters: list[str] | None, inside: Iterable[str]) -> dict[str, int]:
    from tokenizers import trainers

    tokenizer = blank({})
    limits = {} if letters is None else {"initial_alphabet": letters, "limit_alphabet": len(letters)}
    special = [*SPECIAL, *inside]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **limits)
    )
    return tokenizer.get_vocab()


def _that_fit(pieces: dict[str, int], texts: Iterable[str], room: int) -> list[str]:
    """Return the letters whose pieces, alone and inside a word, have room; the rarest are left out."""
    forms = Counter(piece.removeprefix(MARK) for piece in pieces if piece not in SPECIAL)
    if forms.total() <= room:
        return sorted(forms)
    normalizer, counts = blank({}).normalizer, Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    chosen = []
    for letter in sorted(forms, key=lambda letter: (-counts[letter], letter)):
        room -= forms[letter]
        if room < 0:
            break
        chosen.append(letter)
    return sorted(chosen)


def save(tokenizer, folder: Path, max_length: int = 512) -> None:
    """Write a folder that `AutoTokenizer.from_pretrained` opens."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


def is_own(tokenizer) -> bool:
    """Return whether a tokenizer cuts as those that are made here."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str("\u0e01\u0e02")) == 2


def missing(tokenizer, texts: Iterable[str], most: int = 2000) -> list[str]:
    """Return the characters of the first texts that a tokenizer has no piece for, the commonest first."""
    counts: Counter = Counter()
    for _, text in zip(range(most), texts, strict=False):
        counts.update("".join(text))
    alone = (c for c, _ in counts.most_common() if not c.isspace())
    return [c for c in alone if tokenizer.token_to_id("[UNK]") in tokenizer.encode(c, add_special_tokens=False).ids]
