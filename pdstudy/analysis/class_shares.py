"""Says where the transfer texts have other class shares than D_L, which a student that is distilled on them learns first."""

from pathlib import Path

from pdstudy.escape import escape_control
from pdstudy.storage import results

UNBALANCED = 0.1  # difference of a class share from which a sentence says so; benchmarks/class_shares.py measures what it costs


def sentence(study: str | Path) -> str:
    """Return which class has by the teacher a far larger share of the transfer texts than of train; empty if none has."""
    if not (results.folder_of(study) / results.CLASSES).is_file() or "taught" not in (record := results.load_classes(study)):
        return ""
    taught, train = ([n / max(1, sum(counts)) for n in counts] for counts in (record["taught"], record["classes"]["train"]))
    i = max(range(len(train)), key=lambda i: taught[i] - train[i])
    if taught[i] - train[i] < UNBALANCED:
        return ""
    corrected = results.load_settings(study)["distill"].get("match_classes", False)
    advice = (
        "distill.match_classes corrects for it." if corrected else "Set distill.match_classes: else students answer so too often."
    )
    name = escape_control(record["labels"][i])
    return f"By the teacher {taught[i]:.0%} of the transfer texts are {name}, and {train[i]:.0%} of train. {advice}"
