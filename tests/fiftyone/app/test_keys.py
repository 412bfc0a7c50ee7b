"""The script of the keys in an App that answers late, wrongly or not at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright._impl._driver import compute_driver_executable

SCRIPT = Path(__file__).parents[3] / "fiftyone_plugin" / "dist" / "index.umd.js"
APP = """
const calls = [], later = setTimeout;
let open = "one", press;
Object.assign(globalThis, {
  setInterval: (then) => (globalThis.tick = then),
  setTimeout: (then, ms) => later(then, ms / 200).unref(), // half a minute is .15 s
  location: { pathname: '/datasets/shapes', get search() { return `?id=${open}`; } },
  document: {
    querySelector: (selector) => (selector === '[data-cy="modal"]' && !globalThis.closed ? {} : null),
    getElementById: (id) => globalThis.bar,
    createElement: () => ({ style: {}, remove: () => (globalThis.bar = null) }),
    body: { appendChild: (bar) => (globalThis.bar = bar) },
  },
  addEventListener: (_, listener) => (press = (key) => listener({ key, target: {} })),
  __foo__: { executeOperator: (_, { what, sample_id }, { callback }) => {
    calls.push([what, sample_id]);
    later(() => answer(what, callback), 1);
  } },
});
globalThis.window = globalThis;
process.on("unhandledRejection", () => {});
"""


def reviewed(answer: str, *presses: str) -> Any:
    """What the operator is told, as [what, sample], by keys pressed at once and, after "wait", a good while later.

    answer: JavaScript, how the App answers a call: `what`, `callback`, and `open`, the sample that is open.
    """
    steps = [
        "await new Promise((resolve) => later(resolve, 1000));" if key == "wait" else f"press({json.dumps(key)});"
        for key in (*presses, "wait")
    ]
    story = f"""{APP}
    function answer(what, callback) {{ {answer} }}
    {SCRIPT.read_text()}
    (async () => {{ {" ".join(steps)} console.log(JSON.stringify(calls)); }})();
    """
    node, _ = compute_driver_executable()
    said = subprocess.run([node, "-e", story], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


NEXT = "const next = {one: 'two', two: 'three', three: 'four'}[open];"


@pytest.mark.slow
def test_keys_pressed_ahead_wait_for_the_samples_they_are_about() -> None:
    late = f"{NEXT} callback({{result: {{next}}}}); later(() => (open = next), 5);"
    assert reviewed(late, "a", "k", "e") == [["accept", "one"], ["keep", "two"], ["exclude", "three"]]


@pytest.mark.slow
def test_where_the_next_sample_does_not_open_the_keys_pressed_ahead_are_forgotten() -> None:
    stuck = "callback({result: {next: 'two'}});"
    assert reviewed(stuck, "a", "k", "wait", "e") == [["accept", "one"], ["exclude", "one"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    ["callback({error: 'no', result: {next: 'one'}});", "callback(null);", "", "callback({result: {}});"],
    ids=["an error", "nonsense", "no answer", "no next sample"],
)
def test_a_press_that_fails_takes_those_after_it_along_and_none_that_comes_later(answer: str) -> None:
    assert reviewed(answer, "a", "k", "wait", "e") == [["accept", "one"], ["exclude", "one"]]


@pytest.mark.slow
def test_what_the_keys_do_is_shown_while_a_sample_is_open_in_a_dataset_with_a_run() -> None:
    story = f"""{APP}
    function answer(what, callback) {{ callback({{ result: {{ hint: "a accept" }} }}); }}
    {SCRIPT.read_text()}
    const said = [], wait = () => new Promise((resolve) => later(resolve, 30));
    (async () => {{
      globalThis.closed = true; tick(); await wait(); said.push(calls.length);
      globalThis.closed = false; tick(); await wait(); tick(); tick(); said.push(calls.length, bar.textContent);
      globalThis.closed = true; tick(); said.push(bar);
      console.log(JSON.stringify(said));
    }})();
    """
    node, _ = compute_driver_executable()
    said = subprocess.run([node, "-e", story], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == [0, 1, "a accept", None]
