"""The script of the keys in an App that answers late, wrongly or not at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright._impl._driver import compute_driver_executable

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[3] / "fiftyone_plugin" / "dist" / "index.umd.js"
APP = """
const later = setTimeout, queue = ["one", "two", "three", "four", "five", "six"];
const log = { calls: [], numbers: [], opened: [], told: [], atOnce: 0, together: [] };
let open = "one", press, waiting = 0;
const wait = (ms) => new Promise((resolve) => later(resolve, ms));
const after = (id) => queue.slice(queue.indexOf(id) + 1);
const show = (id) => later(() => (open = id), 2);
Object.assign(globalThis, {
  setInterval: (then) => (globalThis.tick = then),
  setTimeout: (then, ms) => later(then, ms / 200).unref(), // half a minute is .15 s
  location: { pathname: '/datasets/shapes', get search() { return `?id=${open}`; } },
  document: {
    querySelector: (selector) => (selector === '[data-cy="modal"]' && !globalThis.closed ? {} : null),
    querySelectorAll: () => (globalThis.shown || []).map((textContent) => ({ textContent })), // the view, its size
    getElementById: (id) => globalThis.bar,
    createElement: () => ({ style: {}, remove: () => (globalThis.bar = null) }),
    body: { appendChild: (bar) => (globalThis.bar = bar) },
  },
  addEventListener: (name, listener) => name === "keydown" && (press = (key) => listener({ key, target: {} })),
  __foo__: { executeOperator: (uri, params, options) => {
    if (uri === "open_sample") { log.opened.push(params.id); if (!globalThis.stays) show(params.id); return; }
    if (uri === "notify") return log.told.push(params.message);
    const presses = params.presses || [params];
    log.together.push(presses.length);
    log.atOnce = Math.max(log.atOnce, ++waiting);
    const callback = (answered) => { waiting -= 1; options.callback(answered); };
    later(() => (params.presses ? inTurn(presses, callback) : one(params, callback)), 1);
  } },
});
globalThis.window = globalThis;
process.on("unhandledRejection", () => {});
const one = (params, callback) => {
  log.calls.push([params.what, params.sample_id]);
  log.numbers.push(params.press);
  answer(params, callback);
};
// several presses, one after another: an answer for each, or none at all where one of them ends in an error
const inTurn = async (presses, callback) => {
  const answers = [];
  for (const params of presses) {
    const { error, result } = (await new Promise((resolve) => one(params, resolve))) || { error: "nothing" };
    if (error) return callback({ error });
    answers.push(result);
  }
  callback({ result: { answers } });
};
// as the server does it: the next sample, opened unless the page has done so, and those to come
const good = ({ what, sample_id, opened }, callback) => {
  if (what === "ahead") return callback({ result: { hint: "a accept", ahead: after(sample_id) } });
  const next = what === "undo" ? queue[queue.indexOf(sample_id) - 1] : after(sample_id)[0];
  callback({ result: { next, ahead: after(what === "undo" ? next : sample_id) } });
  if (next && !opened) show(next);
};
"""


def said(answer: str, story: str) -> Any:
    """What a story returns. answer: how the App answers a call, in JavaScript, of `params` and `callback`."""
    script = f"""{APP}
    let n = 0;
    function answer(params, callback) {{ const {{ what, sample_id }} = params; n += 1; {answer} }}
    {SCRIPT.read_text()}
    (async () => console.log(JSON.stringify(await (async () => {{ {story} }})())))();
    """
    node, _ = compute_driver_executable()
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def reviewed(answer: str, *presses: str) -> Any:
    """What the operator is told, as [what, sample], by keys pressed at once and, after "wait", a good while later."""
    steps = ["await wait(1000);" if key == "wait" else f"press({json.dumps(key)});" for key in (*presses, "wait")]
    return said(answer, " ".join(steps) + "return log.calls;")


THREE = [["accept", "one"], ["keep", "two"], ["exclude", "three"]]
RESTED = "tick(); tick(); await wait(30);"
"""Somebody looks at the sample for a moment, and the page learns which come next."""


def test_keys_pressed_ahead_are_about_the_samples_in_their_order() -> None:
    assert reviewed("good(params, callback);", "a", "k", "e") == THREE


@pytest.mark.parametrize(("n", "opened"), [(6, True), (3, False)])
def test_in_another_view_the_page_does_not_go_on_in_the_order_of_the_one_before(n: int, opened: bool) -> None:
    told = "if (what !== 'ahead') log.told.push(params.opened); good(params, callback);"
    story = f"shown = ['', '6 samples']; tick(); {RESTED} shown = ['', '{n} samples']; tick(); press('a');"
    assert said(told, f"{story} await wait(800); return log.told;") == [opened]


def test_the_next_sample_opens_before_the_server_has_answered() -> None:
    reply = "later(() => { globalThis.written = params.sample_id; good(params, callback); }, 45);"
    slow = f"if (what === 'ahead') good(params, callback); else {reply}"
    story = f"{RESTED} press('a'); press('k'); press('e'); while (open !== 'four') await wait(1);"
    log = said(slow, f"{story} const early = globalThis.written || ''; await wait(800); return [early, log];")
    assert log[0] == "", "three samples further, before any correction is written"
    assert log[1]["calls"][1:] == THREE
    assert log[1]["atOnce"] == 1, "corrections overtake each other"
    assert len(set(log[1]["numbers"][1:])) == 3


def _once(log: Any) -> list[Any]:
    """The calls of the log, each press once, as a server has them that knows their numbers."""
    return list(dict(zip(reversed(log["numbers"]), reversed(log["calls"]), strict=True)).values())[::-1]


def test_presses_of_fast_hands_are_sent_together_in_their_order() -> None:
    slow = 'if (what === "ahead") good(params, callback); else later(() => good(params, callback), 20);'
    log = said(slow, f"{RESTED} for (const key of 'akea') press(key); await wait(800); return log;")
    assert log["calls"][1:] == [*THREE, ["accept", "four"]]
    assert log["together"] == [1, 4]
    assert log["atOnce"] == 1
    assert len(set(log["numbers"][1:])) == 4


def test_presses_that_are_refused_together_are_sent_one_by_one() -> None:
    answer = "if (what === 'ahead' || waiting === 1 && alone) return good(params, callback); callback({ error: 'no' });"
    alone = "const alone = log.together[log.together.length - 1] === 1;"
    log = said(f"{alone} {answer}", f"{RESTED} for (const key of 'ake') press(key); await wait(800); return log;")
    assert _once(log)[1:] == THREE
    assert log["together"] == [1, 3, 1, 1, 1]
    assert log["told"] == []


def test_what_is_not_answered_is_sent_again_under_its_number_and_nothing_is_lost() -> None:
    for silence in ("", "return callback({ error: new TypeError('Failed to fetch') });"):
        answer = f"if (n === 2 || n === 3) {{ {silence} return; }} good(params, callback);"
        log = said(answer, f"{RESTED} press('a'); press('k'); press('e'); await wait(1000); return log;")
        assert log["calls"][1:] == [["accept", "one"]] * 2 + THREE
        first, again, at_last, second, _ = log["numbers"][1:]
        assert first == again == at_last != second


def test_while_the_server_does_not_answer_it_is_said_and_keys_wait() -> None:
    answer = "if (what === 'ahead') return good(params, callback); callback({ error: new TypeError('gone') });"
    log = said(
        answer, f"{RESTED} press('a'); await wait(100); press('k'); tick(); return [bar.textContent, log.opened];"
    )
    assert "1 correction not written yet" in log[0]
    assert log[1] == ["two"]


@pytest.mark.parametrize(
    "refusal",
    [
        "callback({ error: 'no', result: { next: 'one' } });",
        "callback(null);",
        "callback({ result: { refused: 'no' } });",
    ],
    ids=["an error", "nonsense", "a refusal"],
)
def test_a_sample_whose_correction_is_refused_opens_again_and_the_others_stand(refusal: str) -> None:
    before = "sample_id === 'two' && log.opened.filter((id) => id === 'two').length < 2"
    answer = f"if ({before}) return later(() => {{ {refusal} }}, 50); good(params, callback);"
    story = f"{RESTED} press('a'); press('k'); press('e'); await wait(1500); press('k'); await wait(500);"
    log = said(answer, f"{story} return log;")
    assert _once(log)[1:] == [*THREE, ["keep", "two"]]
    assert log["opened"] == ["two", "three", "four", "two"]


def test_keys_pressed_ahead_of_a_refusal_are_forgotten() -> None:
    assert reviewed("callback({ error: 'no' });", "a", "k", "wait", "e") == [["accept", "one"], ["exclude", "one"]]


def test_where_the_next_sample_does_not_open_the_keys_pressed_ahead_are_forgotten() -> None:
    stuck = "callback({ result: { next: 'two' } });"
    assert reviewed(stuck, "a", "k", "wait", "e") == [["accept", "one"], ["exclude", "one"]]
    log = said(
        "good(params, callback);",
        f"{RESTED} globalThis.stays = true; press('a'); press('k'); await wait(1500); return log;",
    )
    assert log["calls"][1:] == [["accept", "one"]]


def test_an_undo_waits_for_the_corrections_before_it() -> None:
    slow = 'if (what === "ahead") good(params, callback); else later(() => good(params, callback), 20);'
    log = said(
        slow,
        f"{RESTED} for (const key of 'aku') press(key); await wait(1500); press('e'); await wait(500); return log;",
    )
    assert log["calls"][1:] == [["accept", "one"], ["keep", "two"], ["undo", "three"], ["exclude", "two"]]


def test_at_the_end_the_server_decides() -> None:
    story = f"open = 'five'; {RESTED} press('a'); press('k'); press('e'); await wait(800); return log.calls;"
    assert said("good(params, callback);", story)[1:] == [["accept", "five"], ["keep", "six"]]


def test_of_another_dataset_nothing_is_written() -> None:
    slow = 'if (what === "ahead") good(params, callback); else later(() => good(params, callback), 100);'
    story = f"{RESTED} press('a'); await wait(20); press('k'); await wait(40); location.pathname = '/datasets/other';"
    log = said(slow, f"{story} await wait(500); return log;")
    assert log["calls"][1:] == [["accept", "one"]]
    assert "1 corrections" not in log["told"][0]
    assert "not written" in log["told"][0]


def test_what_the_keys_do_is_shown_while_a_sample_is_open_in_a_dataset_with_a_run() -> None:
    story = """
      const heard = [];
      globalThis.closed = true; tick(); tick(); await wait(30); heard.push(n);
      globalThis.closed = false; tick(); tick(); await wait(30); tick(); tick(); heard.push(n, bar.textContent);
      globalThis.closed = true; tick(); heard.push(bar);
      return heard;
    """
    assert said("good(params, callback);", story) == [0, 1, "a accept", None]
