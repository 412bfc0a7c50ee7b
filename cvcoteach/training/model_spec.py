"""Which network to train: `backbone:NAME@96` on the command line and in files, a `ModelSpec` in the program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from cvcoteach._validation import InputError
from cvcoteach.training.trust import runs_code

ModelKind = Literal["own", "torchvision", "function", "backbone", "frozen"]

OWN = ("small", "wide", "resnet32")
"""The networks that come with this package (see `networks`)."""

_PREFIXES: dict[str, ModelKind] = {"backbone:": "backbone", "frozen:": "frozen"}


@dataclass(frozen=True)
class ModelSpec:
    """Names a network and the weights it starts from.

    Text forms: `small`, `wide`, `resnet32`, a classification model of torchvision, `package.module:function`,
    `backbone:NAME` and `frozen:NAME`, the last two with an optional `@PIXELS`.
    """

    kind: ModelKind
    """"own" and "torchvision": by name; "function": built by the user's code; "backbone": a pretrained network with a
    fresh last layer; "frozen": a pretrained network that stays as it is, with fresh heads on its features."""
    name: str
    """Without prefix and size; of a backbone, as `load_backbone` takes it."""
    image_size: int | None = None
    """Height and width that a backbone sees, pixels; None: the size it was pretrained on."""
    weights: str | None = None
    """"default" (the published ones), "none" (a fresh initialisation) or a file; None: published ones if any exist."""

    @classmethod
    def parse(cls, text: str, weights: str | None = None) -> Self:
        """Return the spec that `text` names. A name that no network has is only found out when it is built."""
        for prefix, kind in _PREFIXES.items():
            if text.startswith(prefix):
                whole = text.removeprefix(prefix)
                name, _, size = whole.rpartition("@")
                if name and size.isdecimal():
                    return cls(kind, name, int(size), weights)
                return cls(kind, whole, None, weights)
        if text in OWN:
            return cls("own", text, None, weights)
        return cls("function" if ":" in text else "torchvision", text, None, weights)

    def __str__(self) -> str:
        """Return the text that `parse` takes; the weights are not part of it."""
        prefix = next((prefix for prefix, kind in _PREFIXES.items() if kind == self.kind), "")
        return f"{prefix}{self.name}" + (f"@{self.image_size}" if self.image_size is not None else "")

    def __post_init__(self) -> None:
        if self.image_size is not None and not self.has_backbone:
            raise InputError(
                f"image_size is {self.image_size} for {self.name}; only backbones have a size of their own."
            )

    @property
    def has_backbone(self) -> bool:
        """Whether it is built from a backbone, fine-tuned or frozen."""
        return self.kind in ("backbone", "frozen")

    @property
    def is_foreign(self) -> bool:
        """Whether building it runs code from outside this package, torchvision and timm."""
        if self.has_backbone:
            return runs_code(self.name)
        return self.kind == "function"

    @property
    def weights_file(self) -> str | None:
        """The file that `weights` names, if it names one."""
        return None if self.weights in (None, "default", "none") else self.weights

    def with_weights(self, weights: str | None) -> Self:
        """Return the same network starting from other weights."""
        return replace(self, weights=weights)
