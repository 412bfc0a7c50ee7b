"""Independent views: heads on frozen features, networks from scratch, and both fused.

    python examples/benchmarks/views.py [--images 20000] [--noises random1 worse] [--rounds 3]
    python examples/benchmarks/views.py --witnesses [--images 10000] [--noises aggre random2]

The first share of the CIFAR-10N images; one thread, bfloat16. What is measured of the views is kept in
build/benchmarks/views-IMAGES-ROUNDS.json and not measured again; delete it to start anew. With --witnesses: what a
vote of neighbours in feature space, fused as a view, and margins inside training (AUM), fused by rank two to one, add
to heads on features.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from data import BUILD, HUMAN_LABELS, frozen_features, load_cifar10n
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldProgress
from cvcoteach.crossval.views import fuse_pred_probs
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.torch_trainer import TorchTrainer

K = 10
NEIGHBOURS = (10, 30, 50)
_EPOCHS, _BATCH = 8, 128

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int)
    parser.add_argument("--noises", nargs="+", choices=HUMAN_LABELS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--witnesses", action="store_true")
    args = parser.parse_args()
    n = args.images or (10_000 if args.witnesses else 20_000)
    data = load_cifar10n()
    features, true = frozen_features()[:n], data.true_labels[:n]
    if args.witnesses:
        rows = []
        for name in args.noises or ("aggre", "random2"):
            given = data.given[name][:n]
            rows += [[name, *row] for row in witnesses(features, given, given != true)]
        publish("witnesses", f"{n:,} images.\n\n" + markdown(["labels", "evidence", "AP", "gain", "CPU seconds"], rows))
        return
    kept = BUILD / f"views-{n}-{args.rounds or 3}.json"
    measured = json.loads(kept.read_text()) if kept.exists() else {}
    for name in args.noises or ("random1", "worse"):
        if name not in measured:
            given = data.given[name][:n]
            measured[name] = list(views(features, data.images[:n], given, given != true, args.rounds))
            kept.write_text(json.dumps(measured))
        title = f"{n:,} images, {args.rounds or 3} rounds.\n\n"
        rows = [[name, *row] for name, of_name in measured.items() for row in of_name]
        publish("views", title + markdown(["labels", "view", "AP", "F1", "weight", "CPU seconds"], rows))


def views(
    features: Floats, images: npt.NDArray[np.uint8], given: Labels, wrong: npt.NDArray[np.bool_], rounds: int | None
) -> Iterator[list[Any]]:
    """A row for each view as the rounds with the other one left it, and for both: AP, F1, weight, CPU seconds."""
    heads = HeadTrainer(features, K, threads=1)
    networks = TorchTrainer(images, K, device="cpu", threads=1, precision="bfloat16")
    spent, began = [0.0, 0.0], time.process_time()

    def clock(event: FoldProgress) -> None:
        nonlocal began
        if event.state == "done":
            spent[event.view - 1] += time.process_time() - began
        began = time.process_time()

    result = IterativeCV(n_rounds=rounds).run([heads, networks], given, n_classes=K, on_fold=clock)
    for name, view, seconds in zip(("heads on features", "networks from scratch"), result.views, spent, strict=True):
        yield [name, *figures(wrong, fit_posterior(given, view.pred_probs)), f"{view.weight:.2f}", f"{seconds:.0f}"]
    yield ["both", *figures(wrong, result.posterior), "", f"{sum(spent):.0f}"]


def figures(wrong: npt.NDArray[np.bool_], posterior: Posterior) -> list[float]:
    """Average precision, and F1 of the flags."""
    return [average_precision_score(wrong, posterior.wrong), f1_score(wrong, flags_of(posterior), zero_division=0)]


def witnesses(features: Floats, given: Labels, wrong: npt.NDArray[np.bool_]) -> Iterator[list[Any]]:
    """A row for heads on features alone, and for each witness beside them: AP, gain, CPU seconds."""
    began = time.process_time()
    result = IterativeCV().run(HeadTrainer(features, K, threads=1), given, n_classes=K)
    doubt = result.posterior.wrong
    alone = average_precision_score(wrong, doubt)
    yield ["heads on features", alone, "", f"{time.process_time() - began:.0f}"]
    standard = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    began = time.process_time()
    near = neighbours(standard, max(NEIGHBOURS))
    seconds = time.process_time() - began
    for k in NEIGHBOURS:
        votes = (given[near[:, :k], None] == np.arange(K)).mean(axis=1)
        vote = ((votes + 0.1 / k) / (votes + 0.1 / k).sum(axis=1, keepdims=True)).astype(np.float32)
        reached = average_precision_score(
            wrong, fit_posterior(given, fuse_pred_probs(given, [result.pred_probs, vote])).wrong
        )
        yield [f"with the vote of {k} neighbours", reached, f"{reached - alone:+.3f}", f"{seconds:.0f}"]
    began = time.process_time()
    margin = margins(standard, given)
    reached = average_precision_score(wrong, 2 * rankdata(doubt) + rankdata(-margin))
    yield ["with margins inside training", reached, f"{reached - alone:+.3f}", f"{time.process_time() - began:.0f}"]


def neighbours(standard: Floats, k: int) -> npt.NDArray[np.int64]:
    """The k nearest other images (n, k) by cosine, nearest first."""
    unit = standard / np.linalg.norm(standard, axis=1, keepdims=True)
    near = np.empty((len(unit), k), np.int64)
    for start in range(0, len(unit), 1000):
        alike = unit[start : start + 1000] @ unit.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
        nearest = np.argpartition(-alike, k, axis=1)[:, :k]
        order = np.take_along_axis(alike, nearest, axis=1).argsort(axis=1)[:, ::-1]
        near[start : start + 1000] = np.take_along_axis(nearest, order, axis=1)
    return near


def margins(standard: Floats, given: Labels) -> npt.NDArray[np.float64]:
    """The margin (n,) of the given label inside training, averaged over the epochs of a linear head (AUM)."""
    torch.manual_seed(0)
    x, y = torch.from_numpy(standard), torch.tensor(given)
    head = torch.nn.Linear(x.shape[1], K)
    torch.nn.init.zeros_(head.weight)
    optimizer, total = torch.optim.Adam(head.parameters(), lr=1e-3), np.zeros(len(given))
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(y)).split(_BATCH):
            loss = torch.nn.functional.cross_entropy(head(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = head(x)
            own = logits.gather(1, y[:, None])[:, 0].clone()
            logits.scatter_(1, y[:, None], -torch.inf)
            total += (own - logits.max(dim=1).values).numpy()
    return total / _EPOCHS


if __name__ == "__main__":
    main()
