"""The panel's component in the page: what FiftyOne asks to draw again is drawn again only where it has changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from playwright._impl._driver import compute_driver_executable

from cvcoteach.fiftyone.app import layout

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[3] / "fiftyone_plugin" / "dist" / "index.umd.js"
PAGE = """
const components = {}, kept = [];
let hook = 0;
const once = (make) => { const n = hook++; return (kept[n] ??= make()); };
globalThis.window = {
  addEventListener: () => {},
  React: {
    createElement: (type, props, ...children) => ({ type, props, children }),
    useRef: (current) => once(() => ({ current })),
    useMemo: (make, needs) => {
      const memo = once(() => ({}));
      if (!memo.needs || needs.some((one, n) => one !== memo.needs[n])) Object.assign(memo, { needs, made: make() });
      return memo.made;
    },
  },
  __fop__: {
    PluginComponentType: { Component: 4 },
    registerComponent: (known) => (components[known.name] = known),
    usePluginComponent: (name) => once(() => ({ component: name })),
  },
};
globalThis.setInterval = () => {};
const draw = (props) => { hook = 0; return components[NAME].component(props); };
const told = [];
const panel = (title, more) => ({
  root_id: "one",
  schema: { type: "object", properties: { title }, view: { component: NAME, height: 3, gap: 1 } },
  data: { title },
  layout: { width: 400 },
  onChange: (...given) => told.push(["first", ...given]),
  ...more,
});
"""


def said(story: str) -> Any:
    """What a story returns."""
    script = f"{PAGE.replace('NAME', json.dumps(layout.PANEL))} {SCRIPT.read_text()} {story}"
    node, _ = compute_driver_executable()
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_panel_without_a_change_is_what_was_drawn_before() -> None:
    same, other, size = said("""
    const first = draw(panel("12 labels look wrong"));
    const again = draw(panel("12 labels look wrong", { onChange: () => {}, autoFocused: {} }));
    const changed = draw(panel("11 labels look wrong")), wider = draw(panel("11 labels look wrong", { layout: {} }));
    console.log(JSON.stringify([again === first, changed === first, wider === changed]));
    """)
    assert same, "drawn again for nothing"
    assert not other, "the old figures stay"
    assert not size, "the old size stays"


def test_it_is_a_column_of_fiftyones_that_calls_the_handler_of_now() -> None:
    shown, told = said("""
    const [inner] = draw(panel("one title")).children;
    draw(panel("one title", { onChange: (...given) => told.push(["latest", ...given]) }));
    inner.props.onPathChange("brain_key", "second", { type: "string" }, "its state");
    console.log(JSON.stringify([{ type: inner.type, ...inner.props }, told]));
    """)
    assert shown["type"] == "SchemaIOComponent"
    assert shown["schema"]["view"] == {"component": "GridView", "gap": 1}
    assert (shown["id"], shown["data"]) == ("one", {"title": "one title"})
    assert told == [["latest", "brain_key", "second", {"type": "string"}]]


def test_the_panels_name_their_component() -> None:
    assert layout.column().to_json()["component"] == layout.PANEL
