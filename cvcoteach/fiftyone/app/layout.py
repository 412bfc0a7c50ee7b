"""The look of the panel: headings, figures, buttons, thumbnails, in the colours of FiftyOne's own theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import fiftyone.operators.types as types

PANEL = "cvcoteach_panel"
"""The component of the plugin's script that draws the panel, and draws it again only where it has changed."""
LATER = "cvcoteach_later"
"""The component of the plugin's script that draws a part of the panel in its time."""

Style = Mapping[str, Any]
"""Of Material UI's `sx`: CSS, with the theme's names for colours and spaces."""

_QUIET = {"color": "text.secondary", "fontSize": "0.8125rem", "lineHeight": 1.45}
_ONE_LINE = {"overflow": "hidden", "textOverflow": "ellipsis", "whiteSpace": "nowrap"}
_SMALL_ICON = {"& .MuiButton-startIcon": {"ml": 0, "mr": 0.5}, "& .MuiIcon-root": {"fontSize": "1.25rem"}}
_TWO_LINES = {"overflow": "hidden", "display": "-webkit-box", "WebkitLineClamp": 2, "WebkitBoxOrient": "vertical"}
_TILE = "rgba(var(--fo-palette-common-onBackgroundChannel) / 0.06)"  # lighter in the dark theme, darker in the light


@dataclass(frozen=True)
class Figure:
    """A number to be seen at a glance."""

    value: str
    what: str
    """What it is, two or three words."""
    more: str = ""
    """An interval or the like, in small print."""


@dataclass(frozen=True)
class Action:
    """A button and what it does."""

    name: str
    label: str
    icon: str
    on_click: Any
    """A method of the panel, or the URI of an operator."""
    params: Mapping[str, Any] | None = None
    """What the click sends."""


@dataclass(frozen=True)
class Card:
    """A sample that a click opens."""

    image: str
    """URL."""
    given: str
    suggested: str
    params: Mapping[str, Any]
    """What the click sends."""


def column() -> types.GridView:
    """Return the panel's own view: one column as wide as the panel, however long a line is."""
    return types.GridView(
        component=PANEL, composite_view=True, orientation="vertical", gap=1.5, pad=2,
        componentsProps=_grid("minmax(0, 1fr)"),
    )  # fmt: skip


def later(panel: Any, name: str, *, height: int = 0) -> types.Object:
    """Add a column that is drawn once what is around it is; with a height in pixels, once it is scrolled into view.

    The plugin's script draws it (`LATER`), in the page, of what the panel has sent already.
    """
    view = types.GridView(
        component=LATER, composite_view=True, height=height, orientation="vertical", gap=1.5,
        componentsProps=_grid("minmax(0, 1fr)"),
    )  # fmt: skip
    column = types.Object()
    panel.define_property(name, column, view=view)
    return column


def heading(panel: Any, name: str, text: str) -> None:
    """Add a heading above a part of the panel."""
    _markdown(panel, name, text, {"mt": 1.5, "& p": {"fontSize": "0.9375rem", "fontWeight": 600}})


def title(panel: Any, name: str, text: str) -> None:
    """Add the one line that sums it all up."""
    _markdown(panel, name, text, {"& p": {"fontSize": "1.25rem", "fontWeight": 600, "lineHeight": 1.3}})


def paragraph(panel: Any, name: str, text: str) -> None:
    """Add small print, as Markdown."""
    _markdown(panel, name, text, {"& p": _QUIET, "& strong": {"color": "text.primary"}})


def figures(panel: Any, name: str, shown: Sequence[Figure]) -> None:
    """Add tiles of equal width, side by side."""
    row = panel.h_stack(name, gap=1, componentsProps=_grid(f"repeat({len(shown)}, minmax(0, 1fr))"))
    tile = {
        "bgcolor": _TILE, "borderRadius": "4px", "px": 1.5, "py": 1, "height": "100%", "boxSizing": "border-box",
        "& h3": {"margin": 0, "fontSize": "1.375rem", "lineHeight": 1.3},
        "& p": _QUIET, "& em": {"fontStyle": "normal", "color": "text.tertiary"},
    }  # fmt: skip
    for number, figure in enumerate(shown):
        more = f"  \n*{figure.more}*" if figure.more else ""
        _markdown(row, f"tile_{number}", f"### {figure.value}\n\n{figure.what}{more}", tile)


def buttons(
    panel: Any, name: str, actions: Sequence[Action], *, variant: str = "outlined", columns: int | None = None
) -> None:
    """Add buttons that fill the width, `columns` a row; all in one row if None."""
    n = columns or len(actions)
    row = panel.h_stack(name, gap=1, componentsProps=_grid(f"repeat({n}, minmax(0, 1fr))"))
    for action in actions:
        options = {} if action.params is None else {"params": dict(action.params)}
        button(row, action, variant=variant, **options)


def choices(panel: Any, name: str, actions: Sequence[Action], *, chosen: int) -> None:
    """Add a row of buttons of which one, number `chosen`, is filled: the state that holds."""
    row = panel.h_stack(name, gap=1, componentsProps=_grid(f"repeat({len(actions)}, minmax(0, 1fr))"))
    for number, action in enumerate(actions):
        button(row, action, variant="contained" if number == chosen else "outlined", params=dict(action.params or {}))


def button(panel: Any, action: Action, *, variant: str = "outlined", **options: Any) -> None:
    """Add one button, as wide as its place."""
    look: dict[str, Any] = {"width": "100%", "minWidth": 0, "padding": "5px 2px", "& p": _ONE_LINE, **_SMALL_ICON}
    if variant == "contained":  # as high as one with a frame
        look |= {"border": "1px solid transparent", "boxShadow": "none"}
    style = {"button": {"sx": look}}
    panel.btn(
        action.name, label=action.label, icon=action.icon or None, on_click=action.on_click, variant=variant,
        componentsProps=style, **options,
    )  # fmt: skip


def timer(panel: Any, name: str, milliseconds: int, on_interval: Callable[..., Any]) -> None:
    """Let something happen again and again while the panel is shown as it is."""
    panel.view(name, types.TimerView(interval=milliseconds, on_interval=on_interval))


def cards(panel: Any, name: str, shown: Sequence[Card], on_click: Callable[..., Any], columns: int = 4) -> None:
    """Add thumbnails with given → suggested under them."""
    rows = panel.h_stack(name, gap=1, componentsProps=_grid(f"repeat({columns}, minmax(0, 1fr))"))
    caption = {**_QUIET, **_TWO_LINES, "lineHeight": 1.2}
    for number, card in enumerate(shown):
        place = rows.v_stack(f"card_{number}", gap=0.5, componentsProps=_grid("minmax(0, 1fr)"))
        _thumbnail(place, card, on_click)
        _markdown(place, "given", escaped(card.given), {"& p": caption})
        suggested = {"& p": {**caption, "color": "text.primary"}}
        _markdown(place, "suggested", f"\u2192 **{escaped(card.suggested)}**", suggested)


def picture(panel: Any, name: str, url: str) -> None:
    """Add an image, as large as there is room below what usually stands above it."""
    _image(panel, name, url, {"width": "100%", "height": "max(240px, 100vh - 420px)", "objectFit": "contain"})


def plot(panel: Any, name: str, chart: tuple[Any, Any], on_click: Any) -> None:
    """Add a chart from `charts` that can be clicked.

    Its place is as high as the chart, to which Plotly fits it whenever the window is resized.
    """
    data, layout = chart
    config = {"displayModeBar": False, "responsive": True}
    place = {"plotly": {"style": {"width": "100%", "height": layout["height"], "zIndex": 1}}}
    panel.plot(name, data=data, layout=layout, on_click=on_click, config=config, componentsProps=place)


def media_url(path: str) -> str:
    """Return the URL at which the App serves a file; a web address stays as it is."""
    return path if path.startswith(("http://", "https://")) else f"/media?filepath={quote(path)}"


def escaped(text: str) -> str:
    """Escape a class name, so that Markdown shows it as it is."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()#+-.!|<>~&" else letter for letter in text)


def _thumbnail(panel: Any, card: Card, on_click: Callable[..., Any]) -> None:
    style = {
        "width": "100%", "aspectRatio": "1 / 1", "minHeight": "96px", "objectFit": "cover", "borderRadius": "4px",
        "backgroundColor": _TILE, "cursor": "pointer",
    }  # fmt: skip
    _image(panel, "thumb", card.image, style, alt="no picture", operator=on_click, params=dict(card.params))


def _image(panel: Any, name: str, url: str, style: Style, **options: Any) -> None:
    view = types.ImageView(componentsProps={"image": {"style": {"display": "block", **style}}}, **options)
    panel.define_property(name, types.String(), default=url, view=view)


def _markdown(panel: Any, name: str, text: str, style: Style) -> None:
    paragraphs = {"margin": 0, "overflowWrap": "anywhere", **style.get("& p", {})}
    panel.md(text, name=name, componentsProps={"container": {"sx": {**style, "& p": paragraphs}}})


def _grid(columns: str) -> dict[str, Any]:
    return {"grid": {"sx": {"display": "grid", "gridAutoFlow": "row", "gridTemplateColumns": columns}}}
