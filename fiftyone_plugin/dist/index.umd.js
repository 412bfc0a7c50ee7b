// Keys in an open sample: a accepts, k keeps, e excludes, u undoes; each moves on to the next worst sample.
// FiftyOne has no Python API for keys. The page knows the samples to come and opens the next one at once; the server
// writes meanwhile, in the order of the presses, those of fast hands a few at a time, and each once: what it does not answer
// is sent again under the same number. What it refuses opens again. The App itself gives up where its server has stopped: what
// is not written by then is said, and stays unreviewed.
(() => {
  if (window.__cvcoteachKeys) return; // loaded twice
  window.__cvcoteachKeys = true;
  const PLUGIN = "@cvcoteach/label_issues";
  const OPERATOR = `${PLUGIN}/review_and_move_on`;
  const PANEL = "label_issues";
  const KEYS = { a: "accept", k: "keep", e: "exclude", u: "undo" };
  const ELSEWHERE = '[data-cy="operators-prompt-modal"], [data-cy="lighter-sample-renderer"]'; // a form; the Annotate tab
  const PATIENCE = 15000; // ms, for the App to open the next sample
  const ANSWER = 30000; // ms, for the operator to answer
  const AGAIN = 2000; // ms, until what was not answered is sent again
  const FRESH = 60000; // ms, for which the samples to come are taken to be those: others review too
  const LOOK = 300; // ms
  const LATEST = 50; // of this page's corrections, as many as an undo asks for
  const TOGETHER = 10; // corrections sent at once, at most
  const GATEWAY = [502, 503, 504]; // a proxy's answer for a server that has none
  const HINT = "cvcoteach-keys";
  const REOPEN = "cvcoteach-reopen"; // where the panel is to be opened again
  const SHOWN = '[data-cy="entry-counts"], [data-cy^="panel-content-"]'; // of a dataset
  const presses = []; // keys, before it is known which sample they are about
  const unwritten = []; // corrections that the server has not confirmed, oldest first
  let busy = false; // with presses
  let alone = 0; // corrections that were sent together in vain, and are sent one by one
  let stuck = false; // the server does not answer
  let refused; // the first sample whose correction the server refused, until it is open again
  let coming = { order: [], reviewed: [], since: 0 }; // samples one after another, as the server said last
  const mine = new Set(); // samples corrected by key since one was opened
  const own = []; // the numbers of this page's corrections, oldest first: an undo takes back these first, not another page's
  let panels = []; // beside the grid
  let visit = 0; // to open samples, of one view; what was heard of an earlier one is no longer so

  const there = (selector) => document.querySelector(selector) !== null;
  const openSample = () => new URLSearchParams(location.search).get("id");
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const run = (uri, params, callback) => window.__foo__?.executeOperator(uri, params, callback && { callback });
  const open = (id) => run("open_sample", { id });
  const ask = (params) =>
    new Promise((resolve) => {
      setTimeout(() => resolve({ error: new TypeError("no answer") }), ANSWER);
      run(OPERATOR, params, (answer) => resolve(answer || {}));
    });

  // A number as the database gives: seconds and chance, so that no two presses have the same one.
  const numbered = () =>
    Math.floor(Date.now() / 1000).toString(16).padStart(8, "0") +
    Array.from({ length: 16 }, () => Math.floor(Math.random() * 16).toString(16)).join("");

  async function shows(id) {
    let step = 20;
    for (let waited = 0; openSample() !== id && waited < PATIENCE; waited += step) {
      step = waited < 1000 ? 20 : 200;
      await pause(step);
    }
    return openSample() === id;
  }

  function following(id) {
    const place = coming.order.indexOf(id);
    return place < 0 || Date.now() - coming.since > FRESH ? undefined : coming.order[place + 1];
  }

  function heard(first, { ahead, reviewed, panels: shown }) {
    panels = shown || panels;
    coming = { order: [first, ...(ahead || [])], reviewed: [first, ...(reviewed || [])], since: Date.now() };
  }

  // Whether nobody had reviewed a sample when the server spoke of it: what somebody else decides since is not overruled.
  const first = (id) => coming.order.includes(id) && !coming.reviewed.includes(id) && !mine.has(id);

  // -- a press: to the next sample, at once where it is known which one that is --

  async function work() {
    busy = true;
    try {
      while (presses.length) {
        const what = presses.shift();
        const id = openSample();
        if (!id) break;
        const next = what === "undo" ? undefined : following(id);
        if (next) open(next);
        const shown = next && shows(next);
        const written = send(what, id, Boolean(next) || refused !== undefined, shown);
        const goal = next || (await written)?.next; // the server opens what the page does not know of
        if (!goal || !(await (shown || shows(goal)))) presses.length = 0; // meant for what never came
      }
    } finally {
      presses.length = 0;
      busy = false;
    }
  }

  // -- its correction: written in its turn, and once the next sample is there: page and server are free for that first --

  function send(what, sample_id, opened, shown) {
    return new Promise((resolve) => {
      const params = { what, sample_id, opened, first: what !== "undo" && first(sample_id), press: numbered() };
      if (what === "undo") params.own = own.slice(-LATEST);
      else own.push(params.press);
      mine.add(sample_id);
      unwritten.push({ params, at: location.pathname, visit, shown, resolve });
      if (unwritten.length === 1) write();
    });
  }

  async function write() {
    while (unwritten.length) {
      const sent = await gathered();
      if (location.pathname !== sent[0].at) {
        const n = unwritten.length;
        tell(`${n} correction${n === 1 ? " was" : "s were"} not written: the dataset is no longer open.`);
        for (const one of unwritten.splice(0)) one.resolve();
        break;
      }
      const presses = sent.map((one) => one.params);
      const { error, result } = await ask(presses.length > 1 ? { presses } : presses[0]);
      stuck = error instanceof TypeError || GATEWAY.includes(error?.code); // of the network
      if (stuck) {
        await pause(AGAIN);
        continue;
      }
      if (presses.length > 1 && (error || result?.answers?.length !== presses.length)) {
        alone = presses.length;
        continue;
      }
      for (const answer of presses.length > 1 ? result.answers : [result]) settle(answer, error);
    }
    stuck = false;
    alone = 0;
    if (refused !== undefined && there('[data-cy="modal"]') && openSample() !== refused) open(refused);
    refused = undefined;
  }

  // The oldest correction and, as long as keys are pressed faster than samples open, those after it.
  async function gathered() {
    const { at, visit: then, shown } = unwritten[0];
    await shown;
    if (alone) return [unwritten[0]];
    while (presses.length && unwritten.length < TOGETHER && unwritten[unwritten.length - 1].shown) await pause(20);
    const other = unwritten.findIndex((one) => one.at !== at || one.visit !== then);
    const found = unwritten.slice(0, Math.min(TOGETHER, other < 0 ? TOGETHER : other));
    await found[found.length - 1].shown;
    return found;
  }

  // What became of the oldest correction.
  function settle(result, error) {
    const { params, visit: then, resolve } = unwritten.shift();
    alone = Math.max(alone - 1, 0);
    if (error || !result || result.refused) {
      refused ??= params.sample_id;
      presses.length = 0;
      coming.order = [];
    } else if (result.ahead && refused === undefined && then === visit) {
      heard(params.what === "undo" ? result.next : params.sample_id, result);
    }
    resolve(refused === undefined ? result : undefined);
  }

  const tell = (message) => run("notify", { message, variant: "error" });

  window.addEventListener("beforeunload", (event) => unwritten.length && event.preventDefault());

  window.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable=true]");
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || typing) return;
    if (!(event.key in KEYS) || stuck || !there('[data-cy="modal"]') || there(ELSEWHERE)) return;
    presses.push(KEYS[event.key]);
    if (!busy) work();
  });

  // -- what the keys do, and the samples to come: asked for once somebody rests on a sample of a dataset with a run --

  const hints = {}; // by dataset
  let rested, asked; // the sample seen at the last look; that asked about
  let open_ = false; // whether a sample was open at the last look
  let outdated = false; // the panel beside the grid
  let view = ""; // that was shown at the last look
  let home = ""; // the path of a dataset with a run or an open panel
  let beside = false; // whether the panel is open beside the grid
  let lost = 0; // since when nothing of a dataset is shown, ms
  let asking = false; // whether there is a server
  let down = false; // it did not answer

  function look() {
    if (gone()) return;
    const modal = there('[data-cy="modal"]');
    const wanted = modal && !there(ELSEWHERE);
    if (wanted) learn(location.pathname, openSample());
    if (open_ && !modal) forget();
    else if (another()) unlearn();
    open_ = modal;
    if (outdated && !modal && !unwritten.length) refresh();
    const n = unwritten.length;
    const waiting =
      `${n} correction${n === 1 ? "" : "s"} not written yet: the server does not answer. ` +
      "If it has stopped, start it and load this page again; their samples come up again.";
    bar(stuck ? waiting : wanted ? hints[location.pathname] : "");
  }

  // The App leaves the dataset where its server stops, and does not come back to it. The page of a panel does, once
  // there is a server again; what was not written by then stands in the line at the bottom, for somebody to read.
  function gone() {
    if (there(SHOWN)) {
      const panel = there(`[data-cy="panel-content-${PANEL}"]`);
      home = panel || hints[location.pathname] ? location.pathname : "";
      beside = panel;
      lost = 0;
      reopen(panel);
      return false;
    }
    if (!home || home !== location.pathname || unwritten.length) return false;
    lost = lost || Date.now();
    if (Date.now() - lost < AGAIN || asking) return Boolean(asking);
    asking = true;
    fetch("/fiftyone", { cache: "no-store" })
      .then(({ ok }) => ok)
      .catch(() => false)
      .then(async (answers) => {
        if (!there(SHOWN)) {
          if (answers && down) {
            if (beside) sessionStorage.setItem(REOPEN, home);
            location.assign(home);
          }
          down = down || !answers;
          if (down) bar("The App's server does not answer. Reviews are saved; once it runs again, this page comes back.");
        }
        await pause(AGAIN);
        if (there(SHOWN)) down = false;
        asking = false;
      });
    return true;
  }

  // The panel that was open before: the new server knows nothing of it.
  function reopen(panel) {
    if (!sessionStorage.getItem(REOPEN)) return;
    if (!panel && sessionStorage.getItem(REOPEN) === location.pathname)
      run("open_panel", { name: PANEL, layout: "horizontal", isActive: true });
    sessionStorage.removeItem(REOPEN);
  }

  function learn(dataset, id) {
    const known = dataset in hints && (following(id) || hints[dataset] === "");
    if (known || asked === id || busy || unwritten.length) return;
    if (rested !== id) {
      rested = id;
      return;
    }
    asked = id;
    hints[dataset] ??= "";
    const then = visit;
    run(OPERATOR, { what: "ahead", sample_id: id }, (answer) => {
      const result = answer?.result || {};
      hints[dataset] = result.hint || "";
      if (result.ahead && then === visit && !busy && !unwritten.length) heard(id, result);
    });
    setTimeout(() => {
      asked = asked === id ? undefined : asked;
      if (!hints[dataset]) delete hints[dataset]; // there may be a run by then
    }, 10000);
  }

  // Whether another view is shown than at the last look: a card of the panel opens its sample before the App has changed
  // the view, and which samples come next is asked for by then.
  function another() {
    const parts = [...document.querySelectorAll('[data-cy="view-bar"], [data-cy="entry-counts"]')];
    const now = parts.map((part) => part.textContent).join();
    if (!/\d/.test(parts[1]?.textContent || "") || now === view) return false; // it is still counted
    view = now;
    return true;
  }

  function unlearn() {
    visit += 1;
    coming.order = [];
    rested = asked = undefined;
  }

  // The panel beside the grid does not follow the open sample; it is shown anew once the last one is closed.
  function forget() {
    unlearn();
    mine.clear();
    outdated = there(`[data-cy="panel-content-${PANEL}"]`);
  }

  function refresh() {
    outdated = false;
    for (const panel_id of panels) run(`${PLUGIN}/${PANEL}#refresh`, { panel_id });
  }

  function bar(text) {
    const shown = document.getElementById(HINT);
    if (shown && shown.textContent === text) return;
    if (shown) shown.remove();
    if (!text) return;
    const made = Object.assign(document.createElement("div"), { id: HINT, textContent: text });
    made.style.cssText =
      "position:fixed;bottom:8px;left:12px;z-index:10000;pointer-events:none;" + // beside the App's own messages
      "padding:4px 12px;border-radius:4px;background:rgba(0,0,0,.75);color:#fff;font:13px/1.5 sans-serif";
    document.body.appendChild(made);
  }

  setInterval(look, LOOK);
})();

// The panel, drawn again only where it has changed: FiftyOne draws each open panel again at whatever happens in the App,
// such as when the next sample opens above it, which then opens later. And a column of it that is drawn in its time, as
// FiftyOne draws any: once the page is idle or, where it has a height, once it is scrolled into view. What stands above
// it can be read and pressed before.
(() => {
  const { React, __fop__: plugins } = window;
  if (!React || !plugins || window.__cvcoteachLater) return;
  window.__cvcoteachLater = true;
  const NEAR = "300px"; // beyond the edge
  const LONGEST = 500; // ms, for a page that is never idle
  const OWN_LAYER = { willChange: "transform" }; // not sorted in with the rest of the page anew at each of its frames

  // As a grid of FiftyOne's, without what only we know.
  function asGrid({ view: { component, height, ...view }, ...schema }) {
    return { ...schema, view: { ...view, component: "GridView" } };
  }

  function Panel(props) {
    const { schema, data, layout, root_id, onChange, otherProps } = props;
    const drawn = plugins.usePluginComponent("SchemaIOComponent");
    const latest = React.useRef();
    latest.current = onChange; // what was drawn before calls the handler of now
    const shown = JSON.stringify([schema, data, layout]);
    return React.useMemo(() => {
      const onPathChange = (path, value, changed) => latest.current?.(path, value, changed);
      const parts = { id: root_id, schema: asGrid(schema), data, layout, otherProps, onPathChange };
      return React.createElement(
        "div",
        { style: OWN_LAYER },
        drawn ? React.createElement(drawn.component, { ...parts, shouldClearUseKeyStores: false }) : null,
      );
    }, [shown, root_id, drawn]);
  }

  function Later({ schema, data, path, root_id, layout }) {
    const place = React.useRef(null);
    const [due, setDue] = React.useState(false);
    const drawn = plugins.usePluginComponent("SchemaIOComponent");
    const height = schema.view.height || 0;
    React.useEffect(() => {
      if (due) return;
      if (!height) {
        const waiting = requestIdleCallback(() => setDue(true), { timeout: LONGEST });
        return () => cancelIdleCallback(waiting);
      }
      const seen = (entries) => entries.some((entry) => entry.isIntersecting) && setDue(true);
      const watch = new IntersectionObserver(seen, { rootMargin: NEAR });
      watch.observe(place.current);
      return () => watch.disconnect();
    }, [due, height]);
    const parts = path.split(".").reduce((found, name) => found?.[name], data);
    const props = { id: `${root_id}.${path}`, schema: asGrid(schema), data: parts, layout, shouldClearUseKeyStores: false };
    return React.createElement(
      "div",
      { ref: place, style: due ? undefined : { minHeight: height } },
      due && drawn ? React.createElement(drawn.component, props) : null,
    );
  }

  const { Component } = plugins.PluginComponentType;
  const register = (known) => plugins.registerComponent({ ...known, type: Component, activator: () => true });
  register({ name: "cvcoteach_panel", label: "Panel", component: Panel });
  register({ name: "cvcoteach_later", label: "Later", component: Later });
})();
