"""Our issues in cleanlab's Datalab: importing this module registers the issue type "incv".

    import cvcoteach.cleanlab.datalab
    lab = Datalab(data, label_name="label")
    lab.find_issues(issue_types={"incv": {"pred_probs": pred_probs}})

Datalab hands arguments to an issue type of others only inside `issue_types`. A saved lab needs this import again.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import numpy as np

from cvcoteach._validation import InputError, as_pred_probs, check_rows, near
from cvcoteach.crossval.groups import as_groups
from cvcoteach.data.splits import as_splits
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.noise_model.sparse_transition import SparseTransition
from cvcoteach.pipeline.in_memory import KINDS, Evidence, check_rule, label_issues

try:
    from cleanlab.datalab.internal.issue_manager import IssueManager
    from cleanlab.datalab.internal.issue_manager_factory import register
except ImportError as error:
    raise ImportError("Datalab needs more than cleanlab alone; pip install 'cvcoteach[datalab]' gives it.") from error


@register
class INCVIssueManager(IssueManager):
    """Labels that are probably wrong, by cvcoteach.

    Columns: is_incv_issue (bool), incv_score (float64 in [0, 1], probability that the label is right) and
    incv_suggestion (the name of the suggested class: for an issue always another than the given one).
    """

    issue_name: ClassVar[str] = "incv"
    description: ClassVar[str] = """Labels that are probably wrong, by out-of-sample predictions
    from which the typical confusions of the given labels have been undone (cvcoteach).
    """
    verbosity_levels: ClassVar[dict[int, list[str]]] = {
        0: [],
        1: ["noise_ratio"],
        2: ["noise_ratio_per_class"],
        3: ["confusions", "note"],
    }

    def __init__(self, datalab: Any, **options: Any) -> None:
        """Check the options, which are those of `cvcoteach.label_issues` from pred_probs on.

        They are checked here since Datalab swallows what `find_issues` raises.

        Raises InputError for an unknown option, and where not exactly one of pred_probs, images, features and trainer
        is given.
        """
        super().__init__(datalab)
        known = set(inspect.signature(label_issues).parameters) - {"labels", "class_names"}
        for name in options:
            if name not in known:
                raise InputError(f"issue type incv got {name!r}; {near(name, known)}")
        if not any(options.get(name) is not None for name in KINDS):
            raise InputError(
                "issue type incv got no pred_probs, images, features or trainer; Datalab hands them on only inside "
                'issue_types={"incv": {"pred_probs": ...}}.'
            )
        kind = Evidence.of({name: options.get(name) for name in KINDS}).kind
        if not datalab.has_labels:
            raise InputError("issue type incv needs labels; Datalab takes them by label_name.")
        n, k = len(datalab.labels), len(datalab._label_map)
        if kind == "pred_probs":
            shape = np.shape(options[kind])
            if len(shape) == 2 and shape[0] == n and shape[1] > k:
                raise InputError(
                    f"pred_probs has {shape[1]} columns, but Datalab knows {k} classes, those that have labels; name "
                    "all of them: give it a datasets.Dataset whose label is a ClassLabel."
                )
            as_pred_probs(options[kind], (n, k))
        elif kind != "trainer" and hasattr(options[kind], "__len__"):
            check_rows(n, kind, len(options[kind]))
        if options.get("groups") is not None:
            if kind == "pred_probs":
                raise InputError("issue type incv got groups with pred_probs, which models have made already.")
            as_groups(options["groups"], n)
        if options.get("splits") is not None:
            as_splits(options["splits"], n)
        check_rule(options.get("filter_by", "posterior"))

    def find_issues(self, **options: Any) -> None:
        """Find label issues; sets issues, summary and info."""
        labels = np.asarray(self.datalab.labels)
        names = [str(name) for _, name in sorted(self.datalab._label_map.items())]
        found = label_issues(labels, class_names=names, **options)
        self.issues = found.to_frame()[["is_label_issue", "label_quality", "suggested_class"]].set_axis(
            ["is_incv_issue", self.issue_score_key, "incv_suggestion"], axis="columns"
        )
        self.issues["incv_suggestion"] = self.issues["incv_suggestion"].astype(object)
        if found.contradiction.any():
            self.issues["incv_contradiction"] = found.contradiction
        self.summary = self.make_summary(
            score=1 - found.noise_ratio if found.has_signal else float(found.label_quality.mean())
        )
        self.info = self.collect_info(found)

    def collect_info(self, found: LabelIssues) -> dict[str, Any]:
        """Return what Datalab keeps beside the columns, as plain lists, numbers and strings.

        The transition is None where it is sparse.
        """
        per_class = zip(found.class_names, found.noise_ratio_per_class.tolist(), strict=True)
        return {
            "filter_by": found.filter_by,
            "num_issues": found.n_issues,
            "noise_ratio": found.noise_ratio if found.has_signal else None,
            # a class without images has no ratio, and NaN is no JSON
            "noise_ratio_per_class": {name: None if np.isnan(ratio) else ratio for name, ratio in per_class},
            "confusions": found.confusions().to_dict("records"),
            "transition": None if isinstance(found.transition, SparseTransition) else found.transition.tolist(),
            "has_signal": found.has_signal,
            "note": found.note,
            "num_contradictions": int(found.contradiction.sum()),
            **({} if found.splits is None else {"splits": found.by_split().to_dict("records")}),
        }
