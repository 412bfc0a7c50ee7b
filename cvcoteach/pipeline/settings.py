"""Settings that decide the result of a run, and the machine that computes it. Importing this does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cvcoteach._validation import InputError, near, set_counts
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.result import Select
from cvcoteach.issues.flags import FlagFor, FlagRule
from cvcoteach.training.presets import HEADS, PRESETS, Head

if TYPE_CHECKING:
    from cvcoteach.engines.cluster import RayCluster

RULES = ("posterior", "incv")
"""What may flag a label: its probability of being wrong, or that INCV did not select it."""

Engine = Literal["serial", "ray"]
ENGINES: tuple[Engine, ...] = ("serial", "ray")
"""What may compute a run."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""What networks may compute in."""

_DECIDED = ("model", "weights", "epochs", "learning_rate", "flip", "patience", "features", "backbone")
"""Settings that leave nothing for the preset "auto" to decide; beside them it is "fast"."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of `find_issues`, beside the images and labels themselves."""

    preset: str = "auto"
    """"fast", "paper", or "auto": `training.auto_preset.choose` decides, unless a network or its training is set."""
    model: str | None = None
    """Network that is trained; None: the preset's."""
    weights: str | None = None
    """Weights to start from: "default", "none" or a file."""
    epochs: int | None = None
    """Epochs of each training; None: the preset's."""
    learning_rate: float | None = None
    """Peak learning rate; None: the preset's."""
    image_size: int | None = None
    """Pixels a side that images are scaled to; None: the model's."""
    flip: bool | None = None
    """Mirror images at random; None: colour images only."""
    patience: int | None = None
    """Stop after so many epochs without improvement on a held-out 10 % of the fold; None: never."""
    features: Path | str | None = None
    """A .npy or .npz of features, on which heads are trained instead of networks; see `given_features`."""
    backbone: str | None = None
    """Network on whose frozen features heads are trained; see `training.backbones.load_backbone`."""
    finetune: bool = False
    """Train the backbone itself in the folds."""
    head: Head = "linear"
    """Head that is trained on features."""
    also_from_scratch: bool | None = None
    """Train small networks from scratch beside heads on features, and fuse both; None: where the preset "auto" has time
    for it."""
    select: Select | None = None
    """The rule by which rounds select, see `IterativeCV`; None: "posterior", with the preset "paper" "agreement"."""
    n_rounds: int | None = None
    """Number of rounds; None: 3 for "posterior", 4 for "agreement"."""
    n_folds: int | None = None
    """Folds of every round; None: see `IterativeCV.folds`."""
    remove_ratio: float | Literal["auto"] = "auto"
    """Images that "agreement" drops for each one kept, at most."""
    seed: int = 0
    """Of all splits and trainings."""
    bind_near_copies: bool = True
    """Keep near copies of an image in one fold, as exact ones always are."""
    flag_for: FlagFor = "f1"
    """What flags are good at; see `FlagRule`. Another goal trains nothing again."""
    min_probability: float | None = None
    """Flag every label that is wrong with at least this probability instead, in (0, 1]. Trains nothing again either."""

    def __post_init__(self) -> None:
        if self.preset not in ("auto", *PRESETS):
            raise InputError(f"preset is {self.preset!r}; {near(str(self.preset), ('auto', *PRESETS))}")
        if self.head not in HEADS:
            raise InputError(f"head is {self.head!r}; {near(str(self.head), HEADS)}")
        set_counts(self, {"epochs": 1, "image_size": 4, "patience": 1, "n_rounds": 1, "n_folds": 2, "seed": 0})

    @property
    def is_open(self) -> bool:
        """Whether the preset "auto" decides what is trained: no network, features or training is set."""
        return self.preset == "auto" and not self.finetune and all(getattr(self, name) is None for name in _DECIDED)

    @property
    def flag_rule(self) -> FlagRule:
        """The rule behind the flags. Raises InputError for a goal or a probability that does not fit."""
        return FlagRule(self.flag_for, self.min_probability)

    @property
    def selection(self) -> Select:
        """`select`, decided."""
        return self.select or ("agreement" if self.preset == "paper" else "posterior")

    @property
    def cross_validation(self) -> IterativeCV:
        """The rounds that are run."""
        return IterativeCV(self.selection, self.n_rounds, self.n_folds, self.remove_ratio, self.seed)


@dataclass(frozen=True)
class InMemorySettings:
    """Everything that decides the result of `label_issues`, beside the labels and what is known of the images."""

    filter_by: str = "posterior"
    """The rule behind the flags: "posterior" or "incv"."""
    n_rounds: int | None = None
    """Number of rounds; None: 3 for "posterior", 4 for "incv"."""
    n_folds: int | None = None
    """Folds of every round; None: see `IterativeCV.folds`."""
    seed: int = 0
    """Of all splits and trainings."""
    flag_rule: FlagRule = field(default_factory=FlagRule)
    """Which labels "posterior" flags."""
    preset: str = "auto"
    """How images are trained on: "auto", "fast" or "paper", see `Settings`."""
    bind_near_copies: bool = True
    """Keep near copies of an image in one fold, as exact ones always are."""

    @property
    def cross_validation(self) -> IterativeCV:
        """The rounds that are run where there is anything to train on."""
        select: Select = "agreement" if self.filter_by == "incv" else "posterior"
        return IterativeCV(select, self.n_rounds, self.n_folds, seed=self.seed)


@dataclass(frozen=True)
class RetrainSettings:
    """Everything that decides the result of `retrain`, beside the run, the images and the corrections."""

    mode: Literal["posterior", "incv", "correct", "vanilla", "paper"] | None = None
    """What is learned: every image as the classes that the posterior takes it for, without exchange; or by
    Co-teaching, S and later the candidates, all others under corrected labels, everything from the start, or
    algorithm 2 to the letter. None: see `training_mode`."""
    select: Literal["flags", "agreement"] | None = None
    """What S is, and how wrong it may be: what the run did not flag, and its probabilities; or what INCV selected, and
    what the paper says. None: "flags", with the preset "paper" "agreement"."""
    preset: str = "fast"
    """"fast" or "paper"."""
    model: str | None = None
    """None: the run's own, else the preset's."""
    weights: str | None = None
    """Weights to start from; None: the run's own, for the same network."""
    epochs: int | None = None
    """Epochs of both networks; None: as many image passes as the preset's."""
    learning_rate: float | None = None
    """Peak learning rate; None: the preset's."""
    image_size: int | None = None
    """Pixels a side; None: the run's, for the same network, else the network's."""
    flip: bool | None = None
    """Mirror images at random; None: colour images only."""
    noise_rate: float | None = None
    """ε̂ of all labels, in [0, 1); None: the run's, less what was corrected."""
    seed: int = 0
    """Of both networks and their batches."""

    def __post_init__(self) -> None:
        set_counts(self, {"epochs": 1, "image_size": 4, "seed": 0})

    @property
    def selection(self) -> str:
        """`select`, decided."""
        return self.select or ("agreement" if "paper" in (self.preset, self.mode) else "flags")

    @property
    def training_mode(self) -> str:
        """`mode`, decided: "posterior", unless `select` or the preset says what Co-teaching takes for clean."""
        if self.mode is not None:
            return self.mode
        by_default = "posterior" if self.select is None else "incv"
        return "paper" if self.selection == "agreement" else by_default


@dataclass(frozen=True)
class Machine:
    """Where a run computes; none of it is part of the run's identity."""

    device: str | None = None
    """"cuda", "cuda:1", "mps" or "cpu"; None: the fastest."""
    threads: int | None = None
    """CPU threads; None: as many as the process may use."""
    precision: str | None = None
    """"float32", "bfloat16" or "float16"; None: the fastest, by a probe."""
    cache_dir: Path | None = None
    """Where decoded images and features are kept; None: the user's cache."""
    max_pixels: int | None = None
    """Pixels of the largest image to read; None: 268 million."""
    trusted: tuple[str, ...] = ()
    """Names of code from outside that may run: "package.module:function", files of TorchScript or torch.export."""
    deterministic: bool = False
    """Whether a GPU computes convolutions only by algorithms that repeat to the bit, whatever they cost."""
    engine: Engine = "serial"
    """"serial": this process; "ray": tasks on a Ray cluster, or on all GPUs and CPUs of this machine."""
    ray_address: str | None = None
    """Of the Ray cluster: "host:port", or "auto" on one of its nodes; None: Ray is started here."""
    task_gpus: float = 1.0
    """GPUs of a Ray task; a fraction lets several share one."""
    workers_per_fold: int = 1
    """Ray tasks that train each network together, every batch in as many parts; more than one for what one GPU cannot
    hold. Heads are trained by one."""
    cluster: RayCluster | None = field(default=None, repr=False, compare=False)
    """The engine while it runs, see `on_engine`."""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(f"engine is {self.engine!r}; {near(str(self.engine), ENGINES)}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; {near(str(self.precision), PRECISIONS)}")
        set_counts(self, {"threads": 1, "max_pixels": 1, "workers_per_fold": 1})
        of_ray = {"ray_address": None, "task_gpus": 1, "workers_per_fold": 1}
        odd = [name for name, usual in of_ray.items() if getattr(self, name) != usual]
        if self.engine == "serial" and odd:
            raise InputError(f"{odd[0]} is set with engine serial, which has no use for it; add engine ray.")
        if self.cache_dir is not None:  # may be given as text
            object.__setattr__(self, "cache_dir", Path(self.cache_dir))
