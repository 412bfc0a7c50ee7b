#!/usr/bin/env bash
# A worker of Ray is killed, and retried; what does the program that asked for the work print?
#
# Versions:  ray 2.60.0 (Python 3.11, Linux)
# Guess:     Nothing. The program said ray.init(log_to_driver=False, logging_level="CRITICAL"), Ray retried the task, ray.get returned
#            the right value, and a library's messages go to the standard error anyway. A program that prints JSON can be piped.
# Behavior:  A thread of Ray prints a paragraph on the program's own standard output ("A worker died or was killed while executing a
#            task…"), whatever log_to_driver and logging_level say: the output is no JSON any more. The standard error stays empty.
#            (ray._private.worker.listen_error_messages prints with is_err=False; only the private switch
#            ray._private.worker._worker_logs_enabled = False stops it.)
# Output:    value: 42
#            lines on standard output beside the program's: 2, on standard error: 0
#            with the private switch off: 0 and 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check ray==2.60.0 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
cat >"$work/program.py" <<'PY'
import json, os, pathlib, sys, time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray

mark = pathlib.Path(sys.argv[1])
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
if sys.argv[2] == "off":
    ray._private.worker._worker_logs_enabled = False


@ray.remote(max_retries=3)
def answer():
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return 42


value = ray.get(answer.remote())
time.sleep(3)  # the message comes from a thread
ray.shutdown()
print(json.dumps({"value": value}))
PY
"$work/venv/bin/python" "$work/program.py" "$work/on.mark" on >"$work/on.out" 2>"$work/on.err"
"$work/venv/bin/python" "$work/program.py" "$work/off.mark" off >"$work/off.out" 2>"$work/off.err"
"$work/venv/bin/python" - "$work" <<'PY'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])


def beside(name):
    out = [line for line in (work / f"{name}.out").read_text().splitlines() if line.strip()]
    values = [json.loads(line)["value"] for line in out if line.startswith("{")]
    assert values == [42], out
    return len(out) - 1, len([line for line in (work / f"{name}.err").read_text().splitlines() if line.strip()])


said = (work / "on.out").read_text()
on, off = beside("on"), beside("off")
print("value: 42")
print(f"lines on standard output beside the program's: {on[0]}, on standard error: {on[1]}")
print(f"with the private switch off: {off[0]} and {off[1]}")
assert "worker died or was killed" in said, said
assert on[0] >= 1 and on[1] == 0 and off == (0, 0), "the behavior has changed"
PY
