"""What `recommend` answers: methods in order, each with reasons and the numbers behind them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """A published number with where it stands, how strong it is and what is known against it."""

    table: str
    method: str
    column: str
    unit: str
    text: str
    strength: str
    sources: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Reason:
    """A reason, with the published numbers that it leans on; some lean on none."""

    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Option:
    """A method that keeps every constraint, as far as published numbers say.

    Attributes:
        doubts: constraints that a bound or a text leaves open.
    """

    method: str
    label: str
    points: int
    reasons_for: tuple[Reason, ...]
    reasons_against: tuple[Reason, ...]
    doubts: tuple[Reason, ...]


@dataclass(frozen=True)
class Exclusion:
    """A method that breaks constraints, each with the number that excludes it."""

    method: str
    label: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Compromise:
    """A wish whose best method is excluded: the nearest that is not, and what that loses."""

    wish: str
    best: str
    excluded_by: tuple[str, ...]
    nearest: str | None
    lost: str


@dataclass(frozen=True)
class Advice:
    """The whole answer.

    Attributes:
        wishes: in words.
        ranking: the best first.
        conflicts: what of the wishes pulls apart.
        shares: for wishes that two methods may share, the best method of each and its cost.
        remarks: that hold of every answer.
    """

    wishes: tuple[str, ...]
    ranking: tuple[Option, ...]
    excluded: tuple[Exclusion, ...]
    compromises: tuple[Compromise, ...]
    conflicts: tuple[str, ...]
    shares: Mapping[str, str | None]
    remarks: tuple[str, ...]
