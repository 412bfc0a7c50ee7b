"""Two nodes on this machine, one of which is killed while it trains; run by a test in a process of its own."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np

from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.engines.trainer import RayTrainer
from tests.engines.trainers import Together
from tests.fakes import NearestMeans, clouds


def main(folder: str) -> None:
    """Train four folds by two workers, and end the node of one of them in the middle."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    features, _, labels = clouds(60, 3, 0.1, seed=0)
    features = features.astype(np.float32)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    second = nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    notes: list[str] = []
    try:
        with RayCluster(nodes.address, threads=1, note=notes.append) as cluster:
            assert len(cluster.nodes()) == 2

            def kill() -> None:
                while len(os.listdir(folder)) < 2:
                    time.sleep(0.05)
                nodes.remove_node(second, allow_graceful=False)

            killer = threading.Thread(target=kill)
            killer.start()
            trainer = RayTrainer(cluster, Together, features, {"n_classes": 3, "folder": folder, "pause": 1.0})
            answer = cross_validate(trainer, labels, n_folds=4)
            killer.join()
    finally:
        nodes.shutdown()
    np.testing.assert_array_equal(answer, cross_validate(NearestMeans(features, 3), labels, n_folds=4))
    assert any("was lost" in note for note in notes), notes
    print("the same answer")


if __name__ == "__main__":
    main(sys.argv[1])
