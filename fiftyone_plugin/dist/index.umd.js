// Keys in an open sample: a accepts, k keeps, e excludes, u undoes; each moves on to the next worst sample.
// FiftyOne has no Python API for keys. Presses queue up: each waits until the App shows the sample it is about.
(() => {
  if (window.__cvcoteachKeys) return; // loaded twice
  window.__cvcoteachKeys = true;
  const OPERATOR = "@cvcoteach/label_issues/review_and_move_on";
  const KEYS = { a: "accept", k: "keep", e: "exclude", u: "undo" };
  const ELSEWHERE = '[data-cy="operators-prompt-modal"], [data-cy="lighter-sample-renderer"]'; // a form; the Annotate tab
  const PATIENCE = 5000; // ms, for the App to open the next sample
  const ANSWER = 30000; // ms, for the operator to answer
  const HINT = "cvcoteach-keys";
  const presses = [];
  let busy = false;

  const there = (selector) => document.querySelector(selector) !== null;
  const openSample = () => new URLSearchParams(location.search).get("id");
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  const review = (what) =>
    new Promise((resolve) => {
      setTimeout(() => resolve({ error: "no answer" }), ANSWER);
      window.__foo__.executeOperator(OPERATOR, { what, sample_id: openSample() }, { callback: resolve });
    });

  async function work() {
    busy = true;
    try {
      while (presses.length) {
        const { error, result } = await review(presses.shift());
        const next = error ? undefined : result?.next;
        for (let waited = 0; next && openSample() !== next && waited < PATIENCE; waited += 20) await pause(20);
        if (!next || openSample() !== next) presses.length = 0; // they were meant for samples that never came
      }
    } finally {
      presses.length = 0;
      busy = false;
    }
  }

  // What the keys do is shown where they work: in an open sample of a dataset with a run, outside the Annotate tab.
  const hints = {}; // by dataset
  function hint() {
    const wanted = there('[data-cy="modal"]') && !there(ELSEWHERE);
    const dataset = location.pathname;
    if (wanted && !(dataset in hints)) {
      hints[dataset] = "";
      const callback = (answer) => (hints[dataset] = answer?.result?.hint || "");
      window.__foo__?.executeOperator(OPERATOR, { what: "hint" }, { callback });
      setTimeout(() => hints[dataset] || delete hints[dataset], 10000); // there may be a run by then
    }
    const shown = document.getElementById(HINT);
    const text = wanted ? hints[dataset] : "";
    if (shown && !text) shown.remove();
    if (shown || !text) return;
    const bar = Object.assign(document.createElement("div"), { id: HINT, textContent: text });
    bar.style.cssText =
      "position:fixed;bottom:12px;left:50%;transform:translateX(-50%);z-index:10000;pointer-events:none;" +
      "padding:4px 12px;border-radius:4px;background:rgba(0,0,0,.75);color:#fff;font:13px/1.5 sans-serif";
    document.body.appendChild(bar);
  }
  setInterval(hint, 300);

  window.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable=true]");
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || typing) return;
    if (!(event.key in KEYS) || !there('[data-cy="modal"]') || there(ELSEWHERE)) return;
    presses.push(KEYS[event.key]);
    if (!busy) work();
  });
})();
