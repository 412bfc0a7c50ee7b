"""cleanlab's options that limit the flags: a share of them, a number per class, images to leave in each class."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, check_at_least


def limited_flags(
    labels: IntArray,
    quality: FloatArray,
    flags: BoolArray,
    n_classes: int,
    *,
    frac_noise: float = 1.0,
    num_to_remove_per_class: Iterable[int] | None = None,
    min_examples_per_class: int = 1,
) -> BoolArray:
    """Return the flags (n,) that remain under cleanlab's options; those of the lowest quality are kept first.

    Args:
        labels: (n,) given, 0..K-1.
        quality: (n,) label qualities.
        flags: (n,) flags of a rule of ours.
        n_classes: K.
        frac_noise: share of the flags that remains, in [0, 1].
        num_to_remove_per_class: (K,) number of flags in each given class, instead of the rule's.
        min_examples_per_class: number of images to leave unflagged in each class, all if it has fewer.

    Raises:
        InputError: where an option does not fit, or frac_noise and num_to_remove_per_class contradict each other.
    """
    if not 0 <= frac_noise <= 1:
        raise InputError(f"frac_noise is {frac_noise}; it is the share of the flags that stays, from 0 to 1.")
    check_at_least("min_examples_per_class", min_examples_per_class, 0)
    room = np.maximum(np.bincount(labels, minlength=n_classes) - min_examples_per_class, 0)
    if num_to_remove_per_class is not None:
        if frac_noise != 1:
            raise InputError("frac_noise and num_to_remove_per_class are both given; the second says how many already.")
        numbers = np.asarray(list(num_to_remove_per_class))
        if numbers.shape != (n_classes,) or numbers.dtype.kind not in "iu" or (numbers < 0).any():
            raise InputError(
                f"num_to_remove_per_class is {numbers.tolist()}; it takes one whole number from 0 on for each of the "
                f"{n_classes} classes."
            )
        room = np.minimum(numbers, room)
        flags = np.ones(len(labels), np.bool_)
    worst = np.flatnonzero(flags)
    if frac_noise < 1 or (np.bincount(labels[worst], minlength=n_classes) > room).any():
        worst = worst[np.argsort(quality[worst], kind="stable")]
        worst = worst[: round(frac_noise * len(worst))]
        given = pd.Series(labels[worst])
        place_in_class = given.groupby(given).cumcount().to_numpy()
        worst = worst[place_in_class < room[labels[worst]]]
    result = np.zeros(len(labels), np.bool_)
    result[worst] = True
    return result
