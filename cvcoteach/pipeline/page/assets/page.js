"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const PAGE = 48;
  const MOST = 25; // classes in the matrix
  const STORE = "cvcoteach reviews " + data.key;
  const images = data.images.map(([path, given, suggested, wrong, sure, flagged, blind, decision, copies, stranger, near], index) => ({
    index, path, given, suggested, wrong, sure, flagged: !!flagged, blind: !!blind, decision, copies, stranger: !!stranger, near: !!near,
  }));
  const name = (k) => data.classes[k];
  const percent = (p) => (p > 0.995 && p < 1 ? ">99" : p < 0.005 && p > 0 ? "<1" : (100 * p).toFixed(0)) + "%";
  const chance = (p) => percent(Math.min(Math.max(p, 0.0001), 0.9999)); // nothing is certain
  const count = (n, one) => n.toLocaleString("en") + " " + one + (n === 1 ? "" : "s");

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
      else made[key] = value;
    }
    made.append(...children);
    return made;
  }

  // -- decisions --

  const history = [];
  // what a corrections file says, of a page made with one
  const fromFile = new Set(images.filter((image) => image.decision).map((image) => image.path));
  // who judged an image with the suggestion in view cannot judge it blind any more
  const unblind = () => { for (const image of images) if (image.decision && !image.decision.blind) image.blind = false; };
  unblind();
  const elsewhere = {}; // decisions about images that an earlier page of this run listed
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) || "{}");
    const listed = new Set(images.map((image) => image.path));
    for (const image of images) if (Object.hasOwn(kept, image.path)) image.decision = kept[image.path]; // null: taken back
    for (const [path, decision] of Object.entries(kept)) if (decision && !listed.has(path)) elsewhere[path] = decision;
  } catch { /* a page from a file may have no storage */ }
  unblind();

  function keep() {
    const kept = { ...elsewhere };
    for (const image of images) if (image.decision || fromFile.has(image.path)) kept[image.path] = image.decision;
    try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { /* as above */ }
  }

  function decide(image, action, label = "") {
    history.push([image, image.decision]);
    image.decision = action ? { action, label, blind: image.blind } : null;
    keep();
    redraw(image);
    status();
  }

  function verdict(image) {
    const { action, label } = image.decision;
    if (action === "kept") return "kept: " + name(image.given);
    if (action === "excluded") return "excluded";
    return (action === "accepted" ? "accepted: " : "set: ") + label;
  }

  function cell(text) {
    // what a spreadsheet may take for a formula gets an apostrophe, as in issues.csv
    const formula = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) && !/^[+-]?\d+(\.\d*)?(e[+-]?\d+)?$/i.test(text);
    const inert = formula ? "'" + text : text;
    return /[",\r\n;]/.test(inert) ? '"' + inert.replaceAll('"', '""') + '"' : inert;
  }

  function corrections() {
    const rows = images.filter((image) => image.decision).map((image) => [
      image.path, image.decision.action, image.decision.label, name(image.given), name(image.suggested), image.decision.blind ? "yes" : "no",
    ]);
    for (const [path, { action, label, blind }] of Object.entries(elsewhere)) {
      rows.push([path, action, label, "", "", blind ? "yes" : "no"]);
    }
    return [["path", "action", "label", "given_label", "suggested_label", "blind"], ...rows]
      .map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  }

  function save() {
    const link = element("a", {
      href: URL.createObjectURL(new Blob([corrections()], { type: "text/csv" })), download: "corrections.csv",
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // -- which images are shown --

  const controls = Object.fromEntries(["given", "suggested", "show", "sort", "search"].map((id) => [id, byId(id)]));
  let shown = [];
  let drawn = 0;
  let current = -1;
  const cards = new Map();

  function options(select, label, counts) {
    select.replaceChildren(element("option", { value: "", textContent: label }));
    for (const [k, n] of [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])) {
      select.append(element("option", { value: String(k), textContent: `${name(k)} (${n})` }));
    }
  }

  function tally(key) {
    const counts = new Map();
    for (const image of images) if (image.flagged && !image.blind) counts.set(image[key], (counts.get(image[key]) || 0) + 1);
    return counts;
  }

  const ORDERS = {
    worst: (a, b) => a.index - b.index,
    sure: (a, b) => b.sure - a.sure || a.index - b.index,
    pair: (a, b) => a.given - b.given || a.suggested - b.suggested || a.index - b.index,
    path: (a, b) => a.path.localeCompare(b.path),
  };

  function wanted(image) {
    const { given, suggested, show, search } = controls;
    if (given.value && image.given !== Number(given.value)) return false;
    if (suggested.value && (image.blind || image.suggested !== Number(suggested.value))) return false;
    if (show.value === "reviewed" && !image.decision) return false;
    if (show.value === "copies" && !image.copies.length) return false;
    if (show.value === "strangers" && !image.stranger) return false;
    if (show.value === "left" && (image.decision || !(image.flagged || image.blind || image.copies.length))) return false;
    if (show.value === "flagged" && !(image.flagged || image.blind || image.copies.length)) return false;
    return !search.value || image.path.toLowerCase().includes(search.value.toLowerCase());
  }

  function filter() {
    shown = images.filter(wanted).sort(ORDERS[controls.sort.value]);
    drawn = 0;
    current = -1;
    cards.clear();
    byId("grid").replaceChildren();
    more();
    status();
  }

  function more() {
    byId("grid").append(...shown.slice(drawn, drawn + PAGE).map((image, i) => card(image, drawn + i)));
    drawn = Math.min(drawn + PAGE, shown.length);
    byId("more").hidden = drawn >= shown.length;
  }

  // how often people came to our answer: the suggestion if flagged, else the given label; exclusion agrees with a flag
  function agreement(blind, what) {
    if (!images.some((image) => image.blind || (image.decision && image.decision.blind))) return "";
    const judged = images.filter((image) => image.decision && !!image.decision.blind === blind);
    const agreed = judged.filter(({ decision: { action, label }, flagged, given, suggested }) =>
      action === "excluded" ? flagged : (action === "kept" ? name(given) : label) === name(flagged ? suggested : given));
    return judged.length ? `agreed ${what} ${agreed.length} of ${judged.length}` : "";
  }

  function status() {
    const done = images.filter((image) => image.decision).length + Object.keys(elsewhere).length;
    byId("count").textContent = [`${count(shown.length, "image")} · ${done.toLocaleString("en")} reviewed`,
      agreement(true, "blind"), agreement(false, "not blind")].filter(Boolean).join(" · ");
    byId("save").disabled = !done;
    byId("save").textContent = done ? `Save ${count(done, "review")}` : "Save reviews";
  }

  // -- one image --

  const BUTTONS = [
    ["accepted", "Accept", (image) => accept(image)],
    ["kept", "Keep", (image) => decide(image, "kept")],
    ["set", "Set…", (image) => pick(image)],
    ["excluded", "Exclude", (image) => decide(image, "excluded")],
  ];

  function accept(image) {
    if (image.blind || image.suggested === image.given) pick(image);
    else decide(image, "accepted", name(image.suggested));
  }

  function card(image, place) {
    const made = element("li", { className: "card", tabIndex: place ? -1 : 0 });
    made.addEventListener("focus", () => select(shown.indexOf(image)));
    made.addEventListener("click", (event) => { if (!event.target.closest("button")) made.focus(); });
    cards.set(image.index, made);
    fill(image, made);
    return made;
  }

  function fill(image, made) {
    const unseen = image.blind; // even when decided: who changes the decision shall not know more
    const given = name(image.given);
    const other = image.suggested !== image.given;
    const picture = element("div", { className: "picture" });
    if (data.pictures[image.index]) {
      const alt = unseen ? `labelled ${given}` : `labelled ${given}, looks like ${name(image.suggested)}`;
      picture.append(element("img", { src: data.pictures[image.index], alt, decoding: "async" }));
    } else {
      picture.append("no picture in this page");
      picture.title = "cvcoteach report --pictures N puts more of them into the page";
    }
    const body = element("div", { className: "body" });
    const label = element("div", { className: "given" });
    label.append(unseen || !other ? given : element("s", { textContent: given }));
    body.append(label);
    if (unseen) body.append(element("div", { className: "seen", textContent: "What is it?" }), element("div", { className: "sure", textContent: "shown without our suggestion" }));
    else {
      body.append(element("div", { className: "seen", textContent: other ? "→ " + name(image.suggested) : image.copies.length ? (image.near ? "this or its near copy may be wrong" : "this or its copy is wrong") : "looks right" }));
      body.append(element("div", { className: "sure", textContent: other ? `wrong ${chance(image.wrong)} · suggestion ${chance(image.sure)}` : `wrong ${chance(image.wrong)}` }));
    }
    if (image.stranger && !unseen) body.append(element("div", { className: "copy", textContent: "perhaps none of the classes: exclude?" }));
    if (image.copies.length && !unseen) body.append(element("div", { className: "copy", textContent: (image.near ? "a near copy is labelled " : "a copy is labelled ") + image.copies.join(", ") }));
    body.append(element("div", { className: "name", textContent: "\u200e" + image.path, title: image.path }));
    body.append(element("div", { className: "verdict", textContent: image.decision ? verdict(image) : "" }));
    const row = element("div", { className: "buttons" });
    for (const [action, text, act] of BUTTONS) {
      if (action === "accepted" && (image.blind || !other)) continue;
      const pressed = !!image.decision && image.decision.action === action;
      const button = element("button", { type: "button", textContent: text, tabIndex: -1, "aria-pressed": String(pressed) });
      button.addEventListener("click", () => {
        select(shown.indexOf(image));
        if (pressed) decide(image, null);
        else act(image);
      });
      row.append(button);
    }
    body.append(row);
    made.classList.toggle("done", !!image.decision);
    made.setAttribute("aria-label", unseen ? `${image.path}, labelled ${given}` : `${image.path}, labelled ${given}, suggested ${name(image.suggested)}`);
    made.replaceChildren(picture, body);
  }

  function redraw(image) {
    const made = cards.get(image.index);
    if (made) fill(image, made);
  }

  function select(place) {
    const before = shown[current];
    if (before && cards.has(before.index)) {
      cards.get(before.index).removeAttribute("aria-current");
      cards.get(before.index).tabIndex = -1;
    }
    current = place;
    const now = shown[place];
    if (now && cards.has(now.index)) {
      cards.get(now.index).setAttribute("aria-current", "true");
      cards.get(now.index).tabIndex = 0;
    }
  }

  function go(place) {
    const there = Math.max(0, Math.min(place, shown.length - 1));
    while (drawn <= there && drawn < shown.length) more();
    if (shown[there]) cards.get(shown[there].index).focus();
  }

  function columns() {
    const tops = [...byId("grid").children].slice(0, 40).map((each) => each.offsetTop);
    const width = tops.findIndex((top) => top !== tops[0]);
    return width < 1 ? Math.max(tops.length, 1) : width;
  }

  // -- keys --

  const MOVES = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns() };
  const KEYS = { a: accept, k: (image) => decide(image, "kept"), s: pick, e: (image) => decide(image, "excluded") };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("pick").open) return;
    if (event.target.closest("input, select, summary, .matrix")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (MOVES[key] && (current >= 0 || event.target.closest("#grid"))) {
      event.preventDefault();
      go(current + MOVES[key]());
    } else if (key === "u") {
      const [image, before] = history.pop() || [];
      if (!image) return;
      image.decision = before;
      keep();
      redraw(image);
      status();
      if (shown.includes(image)) go(shown.indexOf(image));
    } else if (KEYS[key]) {
      event.preventDefault();
      if (current < 0) { go(0); return; }
      const image = shown[current];
      KEYS[key](image);
      if (key !== "s" && image.decision) go(current + 1);
    }
  });

  // -- another class --

  let picking = null;

  function pick(image) {
    picking = image;
    const known = byId("pick-classes");
    if (!known.children.length) known.append(...data.classes.map((each) => element("option", { value: each })));
    byId("pick-search").value = "";
    byId("pick-error").textContent = "";
    byId("pick").showModal();
  }

  byId("pick-cancel").addEventListener("click", () => byId("pick").close());
  byId("pick").querySelector("form").addEventListener("submit", (event) => {
    const typed = byId("pick-search").value.trim();
    const found = data.classes.includes(typed) ? typed : data.classes.find((each) => each.toLowerCase() === typed.toLowerCase());
    if (found === undefined) {
      event.preventDefault();
      byId("pick-error").textContent = typed ? `“${typed}” is not a class of the run.` : "Type or choose a class.";
      return;
    }
    decide(picking, found === name(picking.given) ? "kept" : "set", found === name(picking.given) ? "" : found);
    setTimeout(() => go(shown.indexOf(picking) + 1));
  });

  // -- the matrix of classes --

  function matrix() {
    const number = new Map(data.classes.map((each, k) => [each, k]));
    const counts = new Map();
    const chosen = new Set(data.classes.length <= MOST ? data.classes.keys() : []);
    for (const { given, suggested, count: n } of data.confusions) { // most frequent first
      const pair = [number.get(given), number.get(suggested)];
      counts.set(pair.join(), n);
      if (new Set([...chosen, ...pair]).size <= MOST) pair.forEach((k) => chosen.add(k));
    }
    if (!counts.size) {
      byId("matrix-note").textContent = "No class is flagged as another one.";
      byId("pairs").hidden = true;
      return;
    }
    const shownClasses = [...chosen].sort((a, b) => a - b);
    byId("matrix-note").textContent = (chosen.size < data.classes.length
      ? `The ${chosen.size} of ${data.classes.length.toLocaleString("en")} classes that are confused most often. ` : "")
      + "Rows: the given class. Columns: the class that it looks like. A cell shows its images.";
    const most = Math.max(...counts.values());
    const head = element("tr", {}, element("th", { scope: "col", textContent: "given \\ looks like" }));
    for (const k of shownClasses) head.append(element("th", { scope: "col", title: name(k) }, element("span", { textContent: name(k) })));
    const body = element("tbody");
    for (const g of shownClasses) {
      const row = element("tr", {}, element("th", { scope: "row", textContent: name(g), title: name(g) }));
      for (const s of shownClasses) {
        const n = counts.get([g, s].join());
        const box = element("td", { className: g === s ? "same" : "" });
        if (n) {
          const button = element("button", {
            type: "button", textContent: n.toLocaleString("en"), title: `${name(g)} → ${name(s)}`,
            "aria-label": `given ${name(g)}, looks like ${name(s)}: ${count(n, "image")}`,
          });
          button.style.background = `rgba(var(--heat), ${0.16 + 0.5 * n / most})`;
          button.addEventListener("click", () => pair(g, s));
          box.append(button);
        }
        row.append(box);
      }
      body.append(row);
    }
    byId("matrix").append(element("table", {}, element("thead", {}, head), body));
    const rows = data.confusions.slice(0, 200).map((each) => {
      const button = element("button", { type: "button", textContent: `${each.given} → ${each.suggested}` });
      button.addEventListener("click", () => pair(number.get(each.given), number.get(each.suggested)));
      return element("tr", {}, element("th", { scope: "row" }, button), element("td", { textContent: each.count.toLocaleString("en") }),
        element("td", { textContent: percent(each.share) }), element("td", { textContent: chance(each.mean_wrong) }));
    });
    const titles = ["given → looks like", "images", "of the class", "mean probability of being wrong"];
    byId("pairs").append(element("table", {}, element("thead", {}, element("tr", {}, ...titles.map((text) => element("th", { scope: "col", textContent: text })))),
      element("tbody", {}, ...rows)));
  }

  function choose(select, k) {
    const value = String(k);
    if (![...select.options].some((option) => option.value === value)) {
      select.append(element("option", { value, textContent: name(k) }));
    }
    select.value = value;
  }

  function pair(g, s) {
    controls.show.value = "flagged";
    controls.sort.value = "worst";
    controls.search.value = "";
    choose(controls.given, g);
    if (s === null) controls.suggested.value = "";
    else choose(controls.suggested, s);
    filter();
    byId("images").scrollIntoView();
    go(0);
  }

  for (const button of document.querySelectorAll("[data-given]")) {
    button.addEventListener("click", () => pair(data.classes.indexOf(button.dataset.given), null));
  }
  for (const control of Object.values(controls)) control.addEventListener("input", filter);
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("tools").addEventListener("reset", () => setTimeout(filter));
  byId("more").addEventListener("click", more);
  byId("save").addEventListener("click", save);
  if (images.some((image) => image.blind)) controls.show.options[0].textContent = "flagged, and blind ones";
  if (!images.some((image) => image.stranger)) controls.show.querySelector("[value=strangers]").remove();
  if (!images.some((image) => image.copies.length)) controls.show.querySelector("[value=copies]").remove();
  if (!images.some((image) => image.flagged || image.copies.length)) controls.show.value = "all";
  filter();
  requestAnimationFrame(() => setTimeout(() => { // what is further down comes after the first images are there
    options(controls.given, "any class", tally("given"));
    options(controls.suggested, "any class", tally("suggested"));
    matrix();
  }));
})();
