"""After retraining: judge all labels again, by pairs of networks that were trained in the same way without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._csv import write_csv
from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.crossval.groups import joined, n_units
from cvcoteach.crossval.incv import posterior_of
from cvcoteach.crossval.kfold import OutOfSampleScorer
from cvcoteach.crossval.trainer import seed_of
from cvcoteach.data.sources import Source
from cvcoteach.issues.flags import FlagRule
from cvcoteach.issues.from_posterior import issues_of
from cvcoteach.noise_model.top_probs import latest, mean_of, rows_of
from cvcoteach.pipeline import run_summary
from cvcoteach.pipeline.annotators import ANNOTATORS, consensus, figures
from cvcoteach.pipeline.classifier import CHECKPOINT
from cvcoteach.pipeline.earlier_runs import difference
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.page.report import PAGE, write_page
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.retraining_set import RetrainingSet, numbers_of_classes
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import predict

RECHECK = "recheck"
"""The run folder in the folder of a classifier."""

_FOLDS = 5
_KEPT = ("source", "reading", "images", "weights", "chosen", "groups", "machine", "versions")
"""What the record of the new run takes from that of the run before."""


@dataclass(frozen=True, eq=False)
class PairTrainer:
    """A `FoldTrainer` that trains two networks as a task says, on a part of its images and as what it learns them as.

    The labels of `fit_predict` are not looked at: what the task's selection makes of them is learned.
    """

    task: CoTeachingTask
    """Of n images."""
    plan: ComputePlan
    """How they are computed."""
    checkpoint: Path
    """Where an unfinished training is kept."""
    progress: RunProgress
    """Follows the epochs."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train a pair on `train_idx` (m,); return its mean probabilities (e, K) of `eval_idx` (e,).

        Raises:
            InputError: Nothing of `train_idx` is selected, or a loss is not finite.
        """
        task = self.task
        selection = task.selection.subset(train_idx)
        if not selection.selected.any():
            raise InputError("a part of the images leaves none that counts as clean; review some of them first.")
        curriculum = selection.curriculum(task.n_classes, task.recipe.epochs)
        curriculum = replace(
            curriculum, selected=train_idx[curriculum.selected], candidate=train_idx[curriculum.candidate]
        )
        training = replace(task, curriculum=curriculum, seed=seed).start(self.plan, self.progress.note)
        run_to_end(training, self.checkpoint, self.progress.epoch)
        answer = predict(training.networks, training.source, eval_idx, mirror=task.recipe.mirrors_predictions)
        self.checkpoint.unlink(missing_ok=True)
        return answer


def judged_again(
    run: FinishedRun,
    data: RetrainingSet,
    task: CoTeachingTask,
    plan: ComputePlan,
    source: Source,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    progress: RunProgress,
) -> RunResults:
    """Judge the labels of a run again, and write what follows as a run of its own, which all commands take.

    Of each image the run's probabilities and those of a pair that did not train on it are averaged, half and half. The
    images that retraining left out (excluded, held out or no longer readable) keep those of the run.

    Args:
        run: Selected by the posterior.
        data: What was retrained on, m of the n images of the run.
        task: How, on the m images.
        plan: How that is computed.
        source: The images of the run, in any order.
        folder: Of the new run; an unfinished one of the same retraining resumes.
        identity: What decided the classifier.
        progress: Follows the trainings.

    Raises:
        InputError: The run selected by agreement, there are fewer images than folds, or a training fails.
    """
    check_can_judge_again(run)
    before = run.results
    with RunFolder.open(folder, {**run.identity, "judged_again_by": dict(identity)}) as new:
        if new.done:
            return replace(RunResults.load(folder), was_done=True)
        new.save(**{name: run.record[name] for name in _KEPT if name in run.record})
        place = {path: row for row, path in enumerate(source.paths)}
        source = source.subset([place[path] for path in before.paths])
        rows, labels = data.rows, before.labels
        groups = _groups(run, source)
        trainer = PairTrainer(task, plan, folder / CHECKPOINT, progress)
        scorer = OutOfSampleScorer(
            trainer,
            len(before.class_names),
            1,
            seed_of(task.seed, len(before.rounds) + 1),
            new.folds,
            progress.fold,
            None if groups is None else np.unique(groups[rows], return_inverse=True)[1],
            given=labels[rows],
        )
        n_folds = min(_FOLDS, n_units(len(rows), scorer.groups))
        scorer.check_enough_images(len(rows), max(2, n_folds))
        progress.plan(len(rows), [n_folds])
        parts, learned = scorer.parts(1, labels[rows], n_folds), data.corrected.labels
        answer = scorer.score_all(1, parts, learned, np.ones(len(rows), np.bool_))
        evidence = mean_of([rows_of(before.pred_probs, rows), answer], labels[rows])
        results = _results(run, data, source, evidence, folder)
        results = replace(results, summary={**results.summary, "since": difference(before, results)})
        write_page(folder / PAGE, results, new.record, source)
        results.save(new)
        return results


def _groups(run: FinishedRun, source: Source) -> IntArray | None:
    """Return the groups (n,) that stay in one fold, as in the run; None where there are none.

    Raises InputError where a run of an earlier build was told of groups that nothing remembers.
    """
    before = run.results
    if (before.groups >= 0).any():
        return before.groups
    if source.groups is None and "groups" in run.record:
        raise InputError(
            f"{before.folder} does not say which images belong to one group, as an earlier build of cvcoteach wrote "
            "it; find the issues again to judge them again."
        )
    if source.groups is None and not before.has_copy.any():
        return None
    return joined(source.groups, before.found.first_copy)


def check_can_judge_again(run: FinishedRun) -> None:
    """Raise InputError where a run selected by agreement: its flags are no matter of probabilities."""
    if run.results.select == "agreement":
        raise InputError(
            f"{run.results.folder} selected by agreement, which leaves no probabilities of all labels to add to; find "
            "the issues with --select posterior, and judge those again."
        )


def _results(run: FinishedRun, data: RetrainingSet, source: Source, evidence: Any, folder: Path) -> RunResults:
    """Return what follows from the new probabilities (m, K) of what was retrained on."""
    before, rows = run.results, data.rows
    n, found = len(before.labels), before.found
    posterior = posterior_of(before.labels, latest([(np.arange(n), before.pred_probs), (rows, evidence)]), found.splits)
    if found.stranger is not None and posterior.has_signal:
        posterior = posterior.with_strangers(found.stranger)
    annotators = {}
    if source.annotations is not None:
        numbers = numbers_of_classes(source.class_names, before.class_names, str(source.location))
        together = consensus(source.annotations.relabelled(numbers), posterior)
        posterior, annotators = together.posterior, figures(together)
        write_csv(folder / ANNOTATORS, together.table, float_format="%.4f")
    issues = issues_of(posterior, class_names=before.class_names, rule=FlagRule.named(found.flag_for))
    issues = replace(
        issues,
        splits=found.splits,
        duplicate_of=found.duplicate_of,
        near_copy_of=found.near_copy_of,
        n_annotators=found.n_annotators,
        agreement=found.agreement,
    )
    judged = before.round.copy()
    judged[rows] = len(before.rounds) + 1
    record = {
        "round": len(before.rounds) + 1,
        "scored": len(rows),
        "kept": 0,
        "dropped": 0,
        "selected": int(before.selected.sum()),
        "candidate": int(before.candidate.sum()),
        "corrected": int((data.corrected.labels != data.given).sum()),
        "agreement": round(float((evidence.argmax(axis=1) == data.given).mean()), 4),
        "noise_rate": round(float(posterior.wrong.mean()), 4)
        if posterior.has_signal
        else before.rounds[-1]["noise_rate"],
    }
    rounds = (*before.rounds, record)
    kept_figures = {
        name: before.summary[name]
        for name in ("n_duplicates", "n_near_copies", "n_contradictions", "n_near_contradictions")
        if name in before.summary
    }
    results = replace(
        before,
        folder=folder,
        pred_probs=posterior.pred_probs,
        round=judged,
        rounds=rounds,
        summary={
            **run_summary.summary(issues, rounds, len(before.unreadable)),
            **kept_figures,
            **annotators,
            "trained_on": before.summary.get("trained_on", "images"),
        },
        alternative=posterior.alternative,
        alternative_prob=posterior.alternative_prob,
        found=issues,
        was_done=False,
    )
    right = before.reviewed.copy()
    right[rows] |= data.corrected.reviewed & (data.corrected.labels == data.given)
    return results.with_reviewed(right) if right.any() else results


def recheck_text(results: RunResults) -> str:
    """Return what judging again changed, in two sentences."""
    since = results.summary["since"]
    n_before = since["still_flagged"] + since["cleared"] + since["fixed"]
    return (
        f"Judged again by networks that did not train on them: "
        f"{run_summary.counted(results.summary['n_issues'], 'label')} flagged ({n_before:,} before), {since['new']:,} "
        f"new, {since['cleared'] + since['fixed']:,} no longer. They are in {results.folder}, a run like any other."
    )
