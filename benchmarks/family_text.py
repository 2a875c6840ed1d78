"""Write the reviews that the released family reads besides Wikipedia and IMDb: the split `reviews/unlabelled` of a mirror.

python benchmarks/family_text.py MIRROR TO

MIRROR holds FDU-MTL (Liu et al., 2017) as `reviews16/<split>.parquet`, columns domain and text. Left out: the domain `mr`,
whose snippets are the texts of `movies` and SST-2; reviews that stand in the labelled test split; repeats. Texts are compared
by their letters and digits, in lower case, because the labelled splits are cut into tokens and the unlabelled one is not.
TO becomes a mirror with the new split and links to the other data sets of MIRROR.
"""

import re
import sys
from pathlib import Path

import pandas as pd


def letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def main(mirror: Path, to: Path) -> None:
    reviews = pd.read_parquet(mirror / "reviews16" / "unlabelled.parquet", columns=["domain", "text"])
    tested = set(pd.read_parquet(mirror / "reviews16" / "test.parquet", columns=["text"]).text.map(letters))
    compared = reviews.text.map(letters)
    chosen = reviews[(reviews.domain != "mr") & ~compared.isin(tested) & ~compared.duplicated()]
    (to / "reviews").mkdir(parents=True, exist_ok=True)
    chosen[["text"]].to_parquet(to / "reviews" / "unlabelled.parquet", index=False)
    for folder in mirror.iterdir():
        if folder.is_dir() and not (to / folder.name).exists():
            (to / folder.name).symlink_to(folder.resolve())
    print(f"{len(chosen):,} of {len(reviews):,} reviews, {chosen.text.str.split().str.len().sum():,} words")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
