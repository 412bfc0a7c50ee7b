"""Finished runs without training: probabilities that know the true classes, and what follows from them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.data.sources import Choices, Source
from cvcoteach.issues.flags import FlagRule
from cvcoteach.issues.from_posterior import issues_of
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.pipeline import run_summary
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_folder import RunFolder

ROUND = {
    "round": 1, "scored": 0, "kept": 0, "dropped": 0, "selected": 0, "candidate": 0, "corrected": 0,
    "agreement": 0.9, "noise_rate": 0.1,
}  # fmt: skip


def finished_run(
    folder: Path,
    source: Source,
    true: IntArray,
    *,
    choices: Choices | None = None,
    sure: float = 6.0,
    seed: int = 0,
    duplicate_of: IntArray | None = None,
    near_copy_of: IntArray | None = None,
    reviewed: BoolArray | None = None,
) -> RunResults:
    """A run of `source`, whose models saw the classes `true` (n,) as clearly as `sure` says."""
    k, n = len(source.class_names), len(source)
    logits = sure * np.eye(k)[true] + np.random.default_rng(seed).normal(size=(n, k))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    posterior = fit_posterior(source.labels, probs)
    issues = issues_of(posterior, class_names=source.class_names, rule=FlagRule())
    issues = replace(issues, duplicate_of=duplicate_of, near_copy_of=near_copy_of)
    rounds = ({**ROUND, "scored": n, "selected": n - issues.n_issues, "candidate": issues.n_issues},)
    with RunFolder.open(folder, {"seed": 0, "select": "posterior"}) as run:
        run.save(source=str(source.location), reading=asdict(choices or Choices()), images={"count": n})
        run.save(versions={"cvcoteach": "0.1.0"}, machine={"system": "a machine"})
        results = RunResults(
            folder=folder,
            source=str(source.location),
            paths=source.paths,
            pred_probs=probs,
            pred_probs_round_1=probs,
            selected=~issues.is_label_issue,
            candidate=issues.is_label_issue,
            round=np.ones(n, np.int64),
            rounds=rounds,
            summary=run_summary.summary(issues, rounds, 0),
            unreadable={},
            alternative=posterior.alternative,
            alternative_prob=posterior.alternative_prob,
            reviewed=np.zeros(n, np.bool_) if reviewed is None else reviewed,
            groups=np.full(n, -1),
            found=issues,
        )
        results.save(run)
    return results
