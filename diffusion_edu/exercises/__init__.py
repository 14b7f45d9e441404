"""Exercises that know your mistake: `check("name", my_function)`.

An exercise is a reference answer, the arguments it is tried on, and slips: the famous wrong answers, each a function
of its own with a sentence about it. An answer that agrees with the reference everywhere is right. One that agrees
with a slip everywhere is told so. Each chapter has a module here with its exercises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill
from typing import Any

import torch
from torch import Tensor

CHAPTERS = (
    "forward",
    "denoising",
    "latent",
    "elbo",
    "score",
    "sde",
    "ode",
    "evaluate",
    "guidance",
    "steering",
    "fast",
    "training",
)


@dataclass(frozen=True)
class Slip:
    """A known wrong answer: a short name, the function, and the sentence that the reader is told."""

    name: str
    answer: Callable[..., Any]
    message: str


@dataclass(frozen=True)
class Exercise:
    """A task: its name, the question in a sentence, the right answer, argument tuples to try, and its slips.

    tolerance: relative and absolute difference up to which two results agree.
    """

    name: str
    question: str
    answer: Callable[..., Any]
    cases: Sequence[tuple[Any, ...]]
    slips: Sequence[Slip]
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Verdict:
    """What `check` found: whether the answer is right, and a sentence for the reader."""

    right: bool
    message: str

    def __repr__(self) -> str:
        mark = "✓" if self.right else "✗"
        return fill(f"{mark} {self.message}", width=76, subsequent_indent="  ")


def exercises() -> dict[str, Exercise]:
    """All exercises of the book by name."""
    found = (import_module(f"diffusion_edu.exercises.{chapter}").EXERCISES for chapter in CHAPTERS)
    return {exercise.name: exercise for chapter in found for exercise in chapter}


def agree(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two results are equal up to `tolerance`: numbers, tensors, or tuples of these; NaN agrees with NaN."""
    if isinstance(right, tuple):
        same_kind = isinstance(left, tuple) and len(left) == len(right)
        return same_kind and all(agree(a, b, tolerance) for a, b in zip(left, right, strict=True))
    left, right = torch.as_tensor(left, dtype=torch.float64), torch.as_tensor(right, dtype=torch.float64)
    return left.shape == right.shape and torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)


def check(name: str, answer: Callable[..., Any]) -> Verdict:
    """Try a reader's function on the exercise's cases; say that it is right, or which slip it has.

    Raises ValueError for an unknown exercise or an answer that is no function.
    """
    known = exercises()
    if name not in known:
        raise ValueError(f"unknown exercise {name!r}; known: {', '.join(known)}")
    if not callable(answer):
        raise ValueError(f"the answer to {name!r} must be a function, got {type(answer).__name__}")
    exercise = known[name]
    try:
        results = [answer(*case) for case in exercise.cases]
        if any(result is None for result in results):
            return Verdict(False, f"{name}: your function returns None: is its `return` missing?")
        for result, case in zip(results, exercise.cases, strict=True):
            agree(result, exercise.answer(*case), exercise.tolerance)
    except Exception as error:  # whatever the reader's code raises is shown to the reader
        return Verdict(False, f"{name}: your function stopped with {type(error).__name__}: {error}")

    def matches(other: Callable[..., Any]) -> bool:
        pairs = zip(results, exercise.cases, strict=True)
        return all(agree(result, other(*case), exercise.tolerance) for result, case in pairs)

    if matches(exercise.answer):
        return Verdict(True, f"{name}: right, on all {len(exercise.cases)} cases.")
    for slip in exercise.slips:
        if matches(slip.answer):
            return Verdict(False, f"{name}: {slip.message}")
    return Verdict(False, f"{name}: {first_difference(exercise, results)}")


def first_difference(exercise: Exercise, results: Sequence[Any]) -> str:
    """A sentence with the first case on which the results are wrong."""
    for number, (result, case) in enumerate(zip(results, exercise.cases, strict=True), 1):
        wanted = exercise.answer(*case)
        if not agree(result, wanted, exercise.tolerance):
            return (
                f"not yet. On case {number} your function gives {brief(result)}, the right answer is {brief(wanted)}."
            )
    raise AssertionError("called for an answer without a difference")


def brief(value: Any) -> str:
    """A number with four digits, or a tensor's shape and first numbers."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(brief, value)) + ")"
    if not isinstance(value, (bool, int, float, Tensor)):
        return repr(value)[:60]
    tensor = torch.as_tensor(value)
    if tensor.numel() == 1:
        return f"{float(tensor):.4g}"
    numbers = ", ".join(f"{float(v):.4g}" for v in tensor.flatten()[:3])
    return f"a tensor of shape {tuple(tensor.shape)} that begins {numbers}"
