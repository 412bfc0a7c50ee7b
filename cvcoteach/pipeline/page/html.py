"""A report's content and pictures -> one self-contained HTML page: no network, no framework, labels are text."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from cvcoteach.pipeline.page.content import copies_sentence, since_rows, since_title
from cvcoteach.pipeline.page.markdown import RELIABILITY, reliability_rows, review_sentences

_MOST_CLASSES = 30
"""Classes shown at once; the others unfold."""

_IN_TILES = ("Estimated noise rate:", "Expected precision", "Expected recall")
"""Sentences that the tiles say."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]], pictures: Sequence[bytes | None]) -> str:
    """Return the report as HTML.

    Args:
        content: As `content.content_of`.
        images: As `content.image_records`, worst first, with the keys blind and decision besides.
        pictures: JPEG or PNG bytes of each image; None where there is no picture.
    """
    title = _text(content["title"])
    data = {
        "key": content["key"],
        "classes": [row["name"] for row in content["classes"]],
        "confusions": content["confusions"],
        "images": _packed(images, content["classes"]),
        "pictures": [None if picture is None else _uri(picture) for picture in pictures],
    }
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_asset('page.css')}</style></head><body>",
            f"<header><h1>{title}</h1>{_headline(content)}</header>",
            _asset("page.html"),
            _classes(content["classes"]),
            _rounds(content["rounds"]),
            _settings(content),
            f'<script type="application/json" id="data">{_json(data)}</script>',
            f"<script>{_asset('page.js')}</script></body></html>\n",
        ]
    )


def _packed(images: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return a row per image.

    path, given, suggested (numbers), wrong, suggested_prob, flagged, blind, decision, copies, stranger, near.
    """
    number = {row["name"]: k for k, row in enumerate(classes)}
    return [
        [
            image["path"],
            number[image["given"]],
            number[image["suggested"]],
            image["wrong"],
            image["suggested_prob"],
            int(image["flagged"]),
            int(image.get("blind", False)),
            image.get("decision"),
            image["copies"],
            int(image["stranger"]),
            int(image["near"]),
        ]
        for image in images
    ]


def _headline(content: Mapping[str, Any]) -> str:
    summary = content["summary"]
    told = [sentence for sentence in content["sentences"] if not sentence.startswith(_IN_TILES)]
    told += [sentence] if (sentence := copies_sentence(content)) else []
    lead = "".join(f"<p>{_text(sentence)}</p>" for sentence in told)
    note = f'<p class="note">{_text(content["note"])}</p>' if content["note"] else ""
    rate, n = summary["noise_rate"], summary["n_images"]
    tiles = [
        (f"{n:,}", "images", f"{content['n_unreadable']:,} unreadable, left out" if content["n_unreadable"] else ""),
        (f"{summary['n_classes']:,}", "classes", ""),
        ("no signal" if rate is None else f"{rate:.1%}", "estimated noise rate", "expected share of wrong labels"),
        (f"{summary['n_issues']:,}", "flagged", f"{summary['n_issues'] / n:.1%} of all labels"),
        _interval_tile(summary["expected_precision"], "expected precision", "of the flagged are wrong"),
        _interval_tile(summary["expected_recall"], "expected recall", "of the wrong are flagged"),
    ]
    shown = "".join(
        f'<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd><dd class="more">{_text(more)}</dd></div>'
        for value, name, more in tiles
    )
    said = _since(content) + ("" if content["reviews"] is None else _reviews(content["reviews"]))
    return f'<div class="lead">{lead}{note}</div><dl class="tiles">{shown}</dl>{said}'


def _since(content: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{number}</td><td>{_text(meaning)}</td></tr>'
        for name, number, meaning in since_rows(content)
    )
    if not rows:
        return ""
    title = _text(since_title(content))
    return f'<div class="reviews" id="since"><h2>{title}</h2><table><tbody>{rows}</tbody></table></div>'


def _reviews(reviews: Mapping[str, Any]) -> str:
    text = "".join(f"<p>{_text(sentence)}</p>" for sentence in review_sentences(reviews))
    if reviews["reliability"]:
        head = "".join(f'<th scope="col">{_text(name)}</th>' for name in RELIABILITY)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in reliability_rows(reviews)
        )
        text += f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="reviews"><h2>Reviews</h2>{text}</div>'


def _interval_tile(interval: Mapping[str, float] | None, name: str, what: str) -> tuple[str, str, str]:
    if interval is None:
        return "—", name, "not known; reviews tell"
    return f"{interval['estimate']:.0%}", name, f"{interval['low']:.0%} to {interval['high']:.0%} {what}"


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted(classes, key=lambda row: (-(row["noise_rate"] or 0), -row["n_flagged"], row["name"]))
    most = max([row["noise_rate"] or 0 for row in ordered], default=0) or 1
    rows = [
        f'<tr><th scope="row"><button type="button" data-given="{_text(row["name"])}">{_text(row["name"])}</button>'
        "</th>"
        f"<td>{row['n_images']:,}</td><td>{row['n_flagged']:,}</td><td>{row['n_suggested']:,}</td>"
        f"<td>{_bar(row['noise_rate'], most)}</td></tr>"
        for row in ordered
    ]
    head = (
        '<thead><tr><th scope="col">given class</th><th scope="col">images</th><th scope="col">flagged</th>'
        '<th scope="col">look like it</th><th scope="col">noise rate</th></tr></thead>'
    )
    shown = f"<table>{head}<tbody>{''.join(rows[:_MOST_CLASSES])}</tbody></table>"
    rest = rows[_MOST_CLASSES:]
    if rest:
        shown += (
            f"<details><summary>{len(rest):,} more classes</summary><table>{head}<tbody>{''.join(rest)}</tbody>"
            "</table></details>"
        )
    return (
        '<section id="classes" aria-labelledby="classes-title"><h2 id="classes-title">Noise per class</h2>'
        "<p>Of the images given a class, the expected share that belongs to another one. “Look like it” counts flagged "
        f"images of other classes.</p>{shown}</section>"
    )


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(r["round"])}</th><td>{r["scored"]:,}</td><td>{r["selected"]:,}</td>'
        f"<td>{r['corrected']:,}</td><td>{_bar(r['agreement'], 1)}</td><td>{_bar(r['noise_rate'], 1)}</td></tr>"
        for r in rounds
    )
    return (
        '<section id="rounds" aria-labelledby="rounds-title"><h2 id="rounds-title">Rounds</h2>'
        "<p>Each round judges the images by models that learned only from labels that the rounds before took for right."
        '</p><table><thead><tr><th scope="col">round</th><th scope="col">judged</th><th scope="col">taken for right'
        '</th><th scope="col">of these relabelled</th><th scope="col">models agree with the label</th>'
        f'<th scope="col">noise rate</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _settings(content: Mapping[str, Any]) -> str:
    groups = [
        ("Settings", content["settings"]),
        ("Versions", content["versions"]),
        ("Machine", {**content["machine"], "seconds": content["seconds"]}),
        ("Folders", {"source": content["source"], "run": content["folder"]}),
    ]
    shown = "".join(
        f"<div><h3>{name}</h3><dl>"
        + "".join(
            f"<dt>{_text(key.replace('_', ' ').replace('.', ': '))}</dt><dd>{_text(_plain(value))}</dd>"
            for key, value in values.items()
        )
        + "</dl></div>"
        for name, values in groups
    )
    return (
        '<section id="settings" aria-labelledby="settings-title"><h2 id="settings-title">Settings and versions</h2>'
        f'<div class="settings">{shown}</div></section>'
    )


def _bar(share: float | None, most: float) -> str:
    if share is None:
        return "—"
    bar = f'<span class="bar"><i style="width:{100 * share / most:.1f}%"></i></span>'
    return f'{bar}<span class="number">{share:.1%}</span>'


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def _uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _json(value: Any) -> str:
    """Return JSON that no HTML parser takes for the end of a script or a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _text(value: object) -> str:
    return html.escape(str(value))


def _asset(name: str) -> str:
    return resources.files("cvcoteach.pipeline.page").joinpath("assets", name).read_text(encoding="utf-8")
