"""A table of issues that a spreadsheet saved is told from one that was damaged or changed."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from cvcoteach._csv import csv_text
from cvcoteach.pipeline.issues_table import tells_the_same

TABLE = pd.DataFrame(
    {
        "path": ["a/1.png", "=b.png", "c, d.png"],
        "given_label": ["cat", "007", "=x"],
        "predicted_label": ["Dog", "cat", "007"],
        "label_quality": [0.123456, 0.5, 0.000012],
        "is_label_issue": [True, False, False],
        "suggested_label": ["Dog", "cat", "007"],
        "suggested_prob": [0.9, 0.1, 0.0],
        "set": ["selected", "candidate", "selected"],
        "round": [1, 2, 3],
        "duplicate_of": ["", "", "a/1.png"],
        "contradiction": [False, False, True],
        "stranger": [0.1, 0.2, 0.312345],
    }
)
WRITTEN = csv_text(TABLE, float_format="%.6f").encode()


def test_a_flipped_bit_is_told_but_one_that_leaves_each_value_as_it_is() -> None:
    missed = {
        WRITTEN[i - 4 : i + 5]
        for i in range(0, len(WRITTEN), 3)
        if tells_the_same(WRITTEN[:i] + bytes([WRITTEN[i] ^ 1 << i % 8]) + WRITTEN[i + 1 :], WRITTEN)
    }
    assert all(text[4:].startswith((b"True,", b"False")) for text in missed)  # true, false


@pytest.mark.parametrize("length", [0, 9, 150, 200, len(WRITTEN) - 2])
def test_a_table_that_was_cut_is_damaged(length: int) -> None:
    assert not tells_the_same(WRITTEN[:length], WRITTEN)


def test_a_spreadsheet_changes_nothing() -> None:
    table = TABLE.sort_values("label_quality").drop(columns="stranger").assign(note="=1+1")
    table["is_label_issue"] = table["is_label_issue"].map({True: "TRUE", False: "FALSE"})
    saved = csv_text(table).replace(",007,", ",7,").replace("\n", "\r\n")
    assert "1.2e-05" in saved
    assert tells_the_same(b"\xef\xbb\xbf" + saved.encode(), WRITTEN)


@pytest.mark.parametrize(
    "change",
    [{"given_label": "cat"}, {"label_quality": 0.5}, {"path": "a/1.png"}, {"set": "dropped"}, {"stranger": ""}],
)
def test_a_value_of_another_kind_is_somebodys_change(change: dict[str, Any]) -> None:
    assert not tells_the_same(csv_text(TABLE.assign(**change)).encode(), WRITTEN)
