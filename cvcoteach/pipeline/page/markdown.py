"""A report's content -> Markdown, as a pull request or a note shows it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from cvcoteach._validation import counted
from cvcoteach.pipeline.page.content import copies_sentence, interval_text, since_rows, since_title

_MOST_ROWS = 20


def markdown(content: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> str:
    """Return a report as Markdown: the headline, the most doubtful images, confusions, classes, rounds.

    content: as `content.content_of`; images: as `image_records`, worst first.
    """
    summary = content["summary"]
    parts = [f"# {cell(content['title'])}", "\n".join(cell(sentence) + "  " for sentence in content["sentences"])]
    parts += [cell(sentence) for sentence in (content["note"], copies_sentence(content)) if sentence]
    rate = summary["noise_rate"]
    headline = [
        ("Images", f"{summary['n_images']:,}"),
        ("Classes", f"{summary['n_classes']:,}"),
        ("Estimated noise rate", "no signal" if rate is None else f"{rate:.1%}"),
        ("Flagged", f"{summary['n_issues']:,}"),
        ("Expected precision", interval_text(summary["expected_precision"])),
        ("Expected recall", interval_text(summary["expected_recall"])),
    ]
    parts.append(table(("", ""), headline))
    if since := since_rows(content):
        parts += [f"## {cell(since_title(content))}", table(("", "", ""), since)]
    if content["reviews"] is not None:
        parts += ["## Reviews", "\n".join(review_sentences(content["reviews"]))]
        if content["reviews"]["reliability"]:
            parts.append(table(RELIABILITY, reliability_rows(content["reviews"])))
    flagged = [image for image in images if image["flagged"]][:_MOST_ROWS]
    if flagged:
        rows = [(i["path"], i["given"], i["suggested"], f"{i['wrong']:.0%}") for i in flagged]
        parts += ["## Most doubtful images", table(("image", "given", "suggested", "wrong with probability"), rows)]
    if content["confusions"]:
        pairs = [
            (c["given"], c["suggested"], f"{c['count']:,}", f"{c['share']:.1%}")
            for c in content["confusions"][:_MOST_ROWS]
        ]
        parts += ["## Confusions", table(("given", "suggested", "images", "of the class"), pairs)]
    noisy = [c for c in content["classes"] if c["noise_rate"] is not None]
    if noisy:
        worst = sorted(noisy, key=lambda c: -c["noise_rate"])[:_MOST_ROWS]
        rows = [(c["name"], f"{c['n_images']:,}", f"{c['n_flagged']:,}", f"{c['noise_rate']:.1%}") for c in worst]
        parts += ["## Noise per class", table(("class", "images", "flagged", "noise rate"), rows)]
    rounds = [(str(r["round"]), f"{r['selected']:,}", f"{r['agreement']:.1%}") for r in content["rounds"]]
    parts += ["## Rounds", table(("round", "learned from", "models agree with the label"), rounds)]
    return "\n\n".join(parts) + "\n"


def review_sentences(reviews: Mapping[str, Any]) -> list[str]:
    """Return what people decided, and how often they agreed with us, as sentences."""
    lines = [
        f"{counted(reviews['n_reviewed'], 'image')} reviewed: {reviews['n_relabelled']:,} relabelled, "
        f"{reviews['n_kept']:,} kept, {reviews['n_excluded']:,} excluded."
    ]
    for name, what in (("agreed_blind", "without our suggestion"), ("agreed_not_blind", "with our suggestion in view")):
        share = reviews[name]
        if share["of"]:
            lines.append(
                f"Reviewed {what}, people agreed with us about {share['agreed']:,} of {counted(share['of'], 'image')} "
                f"({share['agreed'] / share['of']:.0%})."
            )
    if reviews["n_measured"]:
        lines.append(
            f"Measured from {counted(reviews['n_measured'], 'image')} judged blind: precision "
            f"{interval_text(reviews['measured_precision'])}, recall {interval_text(reviews['measured_recall'])}."
        )
    return lines


RELIABILITY = ("images judged blind", "wrong, as the run says", "wrong, as people found")


def reliability_rows(reviews: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of a table of said and found shares of wrong labels, under `RELIABILITY`."""
    return [(f"{group['n']:,}", f"{group['said']:.0%}", f"{group['found']:.0%}") for group in reviews["reliability"]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; what is in the cells is text, never markup."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{char}" if char in "\\|`*_[]~#" else char for char in plain)
