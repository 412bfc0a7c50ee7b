"""Labels and what belongs to them: everything that does not match gets one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import (
    InputError,
    as_labels,
    check_rows,
    counted,
    encode_labels,
    lookalikes,
    order_names,
    verb,
)


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        ([0, 2, 1], [0, 2, 1], None),
        (pd.Series([0, 2, 1], index=[5, 3, 4]), [0, 2, 1], None),
        (np.array([0.0, 1.0]), [0, 1], None),
        (np.array([0, 1], object), [0, 1], None),
        (pd.Series([0, 1], dtype="Int64"), [0, 1], None),
        (["b", "a"], [1, 0], ("a", "b")),
        (pd.Series(["b", "a"], dtype="string"), [1, 0], ("a", "b")),
        (pd.Categorical(["b", "a"]), [1, 0], ("a", "b")),
        (["10", "9", "1"], [2, 1, 0], ("1", "9", "10")),
        ([True, False], [1, 0], ("False", "True")),
    ],
)
def test_labels_of_every_kind_are_numbered(labels: Any, codes: list[int], names: tuple[str, ...] | None) -> None:
    found, found_names = encode_labels(labels)
    assert found.tolist() == codes
    assert found_names == names


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", None, "b"], r"1 of 3 labels is missing, the first is labels\[1\]; leave those rows out"),
        (["a", float("nan"), "b"], r"labels\[1\]"),
        (pd.Series(["a", None], index=[7, 8]), r"1 of 2 labels is missing"),
        (pd.Series([0, 1, None], dtype="Int64"), r"labels\[2\] is nan"),
        ([0, 1, np.nan], r"labels\[2\] is nan"),
        ([[0], [1]], r"labels has shape \(2, 1\); it takes one label per image"),
        ([[0, 1], [1]], "labels has rows of different lengths"),
        (np.array([["a"], ["b", "c"]], dtype=object), r"labels\[0\] is \['a'\]; it takes one label per image"),
        ([], "labels is empty"),
        (7, "labels is a int; it takes an array or a list"),
        ([0, 100, 900, 0, 100], "labels go up to 900, but only 3 different ones occur, so they are ids"),
        (np.arange(1000), "each of the 1,000 labels is a different one, as ids are"),
        ([str(i) for i in range(20)], "each of the 20 labels is a different one"),
        ([0, 9_000_000_000_000_000_000], "so they are ids"),
        ([0, 10**30], "it takes whole numbers"),
        (["a", "a"], "one class only"),
        ([0, -1], r"labels\[1\] is -1; labels start at 0"),
    ],
)
def test_labels_that_do_not_fit_get_a_sentence(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_labels(labels)


def test_given_names_are_the_order_and_the_only_ones() -> None:
    assert encode_labels(["b", "a"], ["b", "x", "a"])[0].tolist() == [0, 2]
    with pytest.raises(InputError, match=r"labels\[1\] is 'c', not a class name; did you mean"):
        encode_labels(["b", "c"], ["b", "a"])
    with pytest.raises(InputError, match=r"labels\[1\] is 5, but there are 2 classes"):
        encode_labels([0, 5], ["b", "a"])


def test_a_class_that_nobody_was_given_keeps_its_number() -> None:
    assert as_labels([0, 1, 4, 4])[1] == 5


def test_rows_that_do_not_match_are_counted() -> None:
    with pytest.raises(InputError, match="labels has 299 rows, but features has 300; it takes one label for each row"):
        check_rows(299, "features", 300)


def test_names_are_in_order_of_value_where_all_are_numbers() -> None:
    assert order_names(["10", "9", "9"]) == ("9", "10")
    assert order_names(["10", "9", "x"]) == ("10", "9", "x")


def test_lookalikes_are_one_note() -> None:
    assert lookalikes(["a", "b"]) == ()
    assert lookalikes(["a", "A", "7", "07", "x y", "x_y", "one", "one "])[0].endswith(
        "and 1 more; write them alike if they are."
    )


def test_one_is_singular_in_every_sentence() -> None:
    assert [counted(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [verb(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
    with pytest.raises(InputError, match="labels has 1 row, but features has 2"):
        check_rows(1, "features", 2)
