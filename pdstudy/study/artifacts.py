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
    here, said = store.here(), []
    released = {d: store.manifest(d) for d in sorted(store.released())}
    for step in plan.of_stage("pretrain"):
        if step.digest in here or plan.source_of(step) is not None or plan.study.corpus.data:  # no family has read another D_LM
            continue
        for digest, theirs in released.items():
            key = {k: theirs["settings"].get(k) for k in ("size", "seed")}
            if theirs["stage"] != "pretrain" or key != {k: step.settings[k] for k in key}:
                continue
            other = [k for k, v in step.settings.items() if theirs["settings"].get(k) != v]
            if other:
                why = ", ".join(f"{k} {theirs['settings'].get(k)} where this study says {step.settings[k]}" for k in other[:3])
            else:
                why = "another corpus, split or tokenizer"
            said.append(
                f"the released {key['size']} ({digest}) was pre-trained with {why}: it is pre-trained anew here. "
                "Give the study the family's settings, or take its folders as they are with the key family"
            )
    return said
