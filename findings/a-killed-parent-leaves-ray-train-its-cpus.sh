#!/usr/bin/env bash
# An actor of Ray trains with Ray Train, and is killed; who gets its CPUs?
#
# Versions:  ray 2.60.0 with its extra train (Python 3.11, Linux)
# Guess:     They are free at once, as those of other actors are that a killed actor had started. Ray Train even starts a detached
#            PlacementGroupCleaner for the case that its controller goes without farewell.
# Behavior:  The controller and the workers of Ray Train end, but the placement group that the controller reserved stays: a minute later no
#            CPU is free. Whatever the same program asks of Ray next waits for ever, without an error; `remove_placement_group` frees
#            the CPUs at once. The cleaner asks Ray's state API for the controller, which the dashboard serves, and neither runs here: the
#            extra train does not bring it.
# Output:    other actors: 0 of 2 CPUs free, 2 once their parent is killed
#            Ray Train: 0 of 2 CPUs free, 0 a minute after its parent is killed; placement groups: CREATED
#            once the placement group is removed: 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'ray[train]==2.60.0' 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
cat >"$work/program.py" <<'PY'
import os
import pathlib
import sys
import time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

folder = sys.argv[1]


def train(config):
    from ray.train import get_context

    (pathlib.Path(folder) / f"runs-{get_context().get_world_rank()}").touch()
    time.sleep(600)


@ray.remote(num_cpus=0)
class RunsRayTrain:
    def begin(self):
        from ray.train import RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
        DataParallelTrainer(
            train, train_loop_config={}, scaling_config=scaling, run_config=RunConfig(storage_path=folder)
        ).fit()


@ray.remote(num_cpus=1)
class HoldsOne:
    def ready(self):
        return True


@ray.remote(num_cpus=0)
class RunsActors:
    def begin(self):
        self.actors = [HoldsOne.remote(), HoldsOne.remote()]
        return ray.get([actor.ready.remote() for actor in self.actors])


def free(wanted, seconds):
    """CPUs that are free, once they are as many as wanted, or after so many seconds."""
    end = time.monotonic() + seconds
    while (n := int(ray.available_resources().get("CPU", 0))) != wanted and time.monotonic() < end:
        time.sleep(0.5)
    return n


pathlib.Path(folder).mkdir()
ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
parent = RunsActors.remote()
ray.get(parent.begin.remote())
held = free(0, 30)
ray.kill(parent)
freed = free(2, 60)
print(f"other actors: {held} of 2 CPUs free, {freed} once their parent is killed")
assert (held, freed) == (0, 2)

parent = RunsRayTrain.remote()
parent.begin.remote()
held = free(0, 120)
end = time.monotonic() + 120
while len(list(pathlib.Path(folder).glob("runs-*"))) < 2:
    assert time.monotonic() < end
    time.sleep(0.5)
time.sleep(30)  # the cleaner is told of the group after training has begun
ray.kill(parent)
kept = free(2, 60)
groups = placement_group_table()
states = ", ".join(group["state"] for group in groups.values())
print(f"Ray Train: {held} of 2 CPUs free, {kept} a minute after its parent is killed; placement groups: {states}")
for name in groups:
    remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
freed = free(2, 60)
print(f"once the placement group is removed: {freed}")
assert (held, kept, states, freed) == (0, 0, "CREATED", 2), "the behavior has changed"
ray.shutdown()
PY
"$work/venv/bin/python" "$work/program.py" "$work/storage" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
