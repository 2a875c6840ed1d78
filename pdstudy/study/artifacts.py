"""Which artifacts of the store some studies need, and which of the released family a study passes over."""

from collections.abc import Iterable

from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study.plan import judged, make, pretraining
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def needed(studies: Iterable[Study]) -> set[str]:
    """Return the digests of the studies' steps, and of the families that their sizes are."""
    plans = [plan for study in studies for plan in (judged(make(study)), pretraining(study, map(Size.parse, study.sizes)))]
    return {digest for plan in plans for digest in plan.steps}


def passed_over(plan: Plan, store: Store) -> list[str]:
    """Return a sentence for each encoder of the released family that a study could have begun from, were it made the same way."""
    digests, messages = store.digests(), []
    released = {digest: store.manifest(digest) for digest in sorted(store.released())}
    for step in plan.of_stage("pretrain"):
        if step.digest in digests or plan.source_of(step) is not None or plan.study.corpus.data:  # no family has this D_LM
            continue
        differences = {}
        for digest, manifest in released.items():
            settings = manifest["settings"]
            if manifest["stage"] == "pretrain" and all(settings.get(k) == step.settings[k] for k in ("size", "seed")):
                differences[digest] = [
                    f"{k} {settings.get(k)} where this study says {v}" for k, v in step.settings.items() if settings.get(k) != v
                ]
        if differences:  # of several families the most similar one
            digest = min(differences, key=lambda digest: len(differences[digest]))
            reason = ", ".join(differences[digest][:3]) or "another corpus, split or tokenizer"
            messages.append(
                f"the released {step.settings['size']} ({digest}) was pre-trained with {reason}: it is pre-trained anew here. "
                "Give the study the family's settings, or take its folders as they are with the key family"
            )
    return messages
