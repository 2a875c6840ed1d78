"""The artifacts of the store that studies need, those of other versions, and the released encoders that a study cannot use."""

from collections import Counter
from collections.abc import Iterable
from importlib import metadata

from pdstudy.sizes import Size
from pdstudy.storage.store import Store
from pdstudy.study.plan import make, pretraining, with_candidates_measured
from pdstudy.study.settings import Study
from pdstudy.study.steps import Plan


def needed(studies: Iterable[Study]) -> set[str]:
    """Return the digests of the studies' steps, and of those that pre-train their sizes as families."""
    plans = [
        plan
        for study in studies
        for plan in (with_candidates_measured(make(study)), pretraining(study, map(Size.parse, study.sizes)))
    ]
    return {digest for plan in plans for digest in plan.steps}


def unusable_encoders(plan: Plan, store: Store) -> list[str]:
    """Return a message for each encoder that a study pre-trains although one of its size and seed is released: what differs."""
    digests, messages = store.digests(), []
    released = {digest: store.manifest(digest) for digest in sorted(store.released())}
    for step in plan.of_stage("pretrain"):
        if step.digest in digests or plan.source_of(step) is not None or plan.study.corpus.data:  # of another D_LM
            continue
        differences = {}
        for digest, manifest in released.items():
            settings = manifest["settings"]
            if manifest["stage"] == "pretrain" and all(settings.get(k) == step.settings[k] for k in ("size", "seed")):
                differences[digest] = [
                    f"{k} {settings.get(k)} (this study: {v})" for k, v in step.settings.items() if settings.get(k) != v
                ]
        if differences:  # of several families the most similar one
            digest = min(differences, key=lambda digest: len(differences[digest]))
            reason = ", ".join(differences[digest][:3]) or "another corpus, split or tokenizer"
            messages.append(
                f"the released {step.settings['size']} ({digest}) cannot be used, it was pre-trained with {reason}. "
                "Change the study's settings to the family's, or take its folders as they are with the key family"
            )
    return messages


def other_versions(plan: Plan, store: Store) -> list[str]:
    """Return a message for each library whose installed version differs from the one that made artifacts of the plan."""
    cached = store.digests()
    manifests = [store.manifest(digest) for digest in plan.steps if digest in cached]
    counts = Counter(used for manifest in manifests for used in manifest.get("versions", {}).items())
    installed = {name: metadata.version(name) for name, _ in counts}
    return [
        f"{n} cached steps were made with {name} {version}; {installed[name]} is installed. They stay valid; `clean` removes them."
        for (name, version), n in sorted(counts.items())
        if version != installed[name]
    ]
