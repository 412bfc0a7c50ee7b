"""Do labels judged again by retrained networks come out better? Average precision and F1, before and after.

    python examples/benchmarks/recheck.py    # on frozen features, three draws of 5,000 images; ten minutes on one core

Before: the rounds of linear heads, as `find-issues --features`. After: the mean of their probabilities and those of
five pairs of heads, each trained as `retrain` does without a fifth of the images, as `retrain --recheck`. That both
count the same was chosen on aggre, random2 and symmetric 0.4 with other draws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from data import N_TRAIN, frozen_features, load_cifar10n
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

from cvcoteach.coteaching.presets import SOFT_HEAD_RECIPE
from cvcoteach.coteaching.selection import Selection, softened
from cvcoteach.coteaching.training import CoTeachingTask, with_epochs
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model.posterior import fit_posterior, label_posterior
from cvcoteach.noise_model.simulate import flip_labels, transition
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.recheck import PairTrainer
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.inputs import FeatureInputs
from cvcoteach.training.standardisation import Standardisation

K, N_IMAGES, DRAWS = 10, 5_000, (0, 1, 2)
HUMAN, SYNTHETIC = ("aggre", "random1", "random2", "random3", "worse"), (("symmetric", 0.5), ("asymmetric", 0.4))
HEADER = ("labels", "AP before", "AP after", "F1 before", "F1 after", "said − true before", "after")

Labels = npt.NDArray[np.int64]


def main() -> None:
    """Measure and publish."""
    data, features = load_cifar10n(), frozen_features()[:N_TRAIN]
    of_sets: dict[str, list[list[float]]] = {}
    for draw in DRAWS:
        rng = np.random.default_rng([draw, 5])
        rows = np.sort(rng.choice(N_TRAIN, N_IMAGES, replace=False))
        true = data.true_labels[rows]
        given = {name: data.given[name][rows] for name in HUMAN if name in data.given}
        given |= {f"{kind} {share}": flip_labels(true, transition(kind, share, K), rng) for kind, share in SYNTHETIC}
        for name, labels in given.items():
            of_sets.setdefault(name, []).append(figures(features[rows], labels, true, draw))
            print(name, draw, *[f"{value:.3f}" for value in of_sets[name][-1]], flush=True)
    publish("recheck", markdown(HEADER, [[name, *np.mean(values, axis=0)] for name, values in of_sets.items()]))


def figures(features: npt.NDArray[np.float32], labels: Labels, true: Labels, seed: int) -> list[float]:
    """AP, F1 and error of the noise rate, each before and after."""
    found = IterativeCV(seed=seed).run(HeadTrainer(features, K, "linear", threads=1), labels, n_classes=K)
    before, probs = found.posterior, np.asarray(found.pred_probs)
    everything = Selection.of_everything(labels, float(before.wrong.mean()))
    selection = softened(everything, label_posterior(labels, probs))
    recipe = with_epochs(SOFT_HEAD_RECIPE, selection)
    inputs = FeatureInputs(Standardisation.of(features).applied(features))
    task = CoTeachingTask(inputs, selection, K, recipe, selection.curriculum(K, recipe.epochs), seed)
    plan = inputs.plan(recipe, K, device="cpu", threads=1, precision="float32")
    trainer = PairTrainer(task, plan, Path("build/benchmarks/recheck.checkpoint.pt"), RunProgress(None))
    again = cross_validate(trainer, labels, seed=seed + 1, n_classes=K)
    after = fit_posterior(labels, (probs + again) / 2)
    wrong, both = labels != true, (before, after)
    return [
        *[float(average_precision_score(wrong, each.wrong)) for each in both],
        *[float(f1_score(wrong, flags_of(each))) for each in both],
        *[float(each.wrong.mean() - wrong.mean()) for each in both],
    ]


if __name__ == "__main__":
    main()
