"""Exercises that know your mistake: `check("name", my_function)`.

An exercise is a reference answer, the arguments it is tried on, and slips: the famous wrong answers, each a function
of its own with a sentence about it. An answer that agrees with the reference everywhere is right. One that agrees
with a slip everywhere is told so. Each chapter has a module here with its exercises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from textwrap import fill
from typing import Any

import numpy as np
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

    def on_cases(self, function: Callable[..., Any]) -> list[Any]:
        """What a function returns on each case. It gets copies, and may work in place."""
        return [function(*deepcopy(case)) for case in self.cases]


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
    """Whether two results are equal up to `tolerance`: numbers, tensors, or tuples of these; NaN agrees with NaN.

    A single number may have any shape: (), (1,), (1, 1).
    """
    if isinstance(right, tuple):
        same_kind = isinstance(left, tuple) and len(left) == len(right)
        return same_kind and all(agree(a, b, tolerance) for a, b in zip(left, right, strict=True))
    left, right = torch.as_tensor(left, dtype=torch.float64), torch.as_tensor(right, dtype=torch.float64)
    if left.numel() == right.numel() == 1:
        left = left.reshape(right.shape)
    return left.shape == right.shape and torch.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)


def read(result: Any, right: Any) -> Any:
    """A reader's result in the form of the right one: a float64 tensor, or a tuple of such. Lists and arrays will do.

    Raises ValueError that says what came instead.
    """
    if result is None:
        raise ValueError("None: is its `return` missing?")
    if isinstance(right, tuple):
        parts = list(result) if isinstance(result, (tuple, list)) or getattr(result, "ndim", 0) else [result]
        if len(parts) != len(right):
            raise ValueError(f"{len(parts)} value{'s' * (len(parts) != 1)}, where {len(right)} are asked for")
        if any(part is None for part in parts):
            raise ValueError("None as one of its values: is that part still missing?")
        return tuple(map(read, parts, right))
    if isinstance(result, tuple):
        comma = ": is there a comma too many?" if len(result) == 1 else ""
        raise ValueError(f"a tuple of {len(result)}, where one number or tensor is asked for{comma}")
    try:
        if isinstance(result, list) and any(isinstance(part, Tensor) for part in result):
            result = torch.stack([torch.as_tensor(part, dtype=torch.float64) for part in result])
        is_complex = result.is_complex() if isinstance(result, Tensor) else np.iscomplexobj(result)
        if not is_complex:
            result = np.array(result) if isinstance(result, np.ndarray) else result  # torch takes no flipped array
            return torch.as_tensor(result, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"something of type {type(result).__name__}, no number or tensor") from None
    raise ValueError("a complex number: did you take the root of a negative one?")


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
    wanted, results = exercise.on_cases(exercise.answer), []
    for number, (case, right) in enumerate(zip(exercise.cases, wanted, strict=True), 1):
        try:
            result = answer(*deepcopy(case))
        except Exception as error:  # whatever the reader's code raises is shown to the reader
            given = ", ".join(map(brief, case))
            stopped = f"your function stopped with {type(error).__name__}: {error}"
            return Verdict(False, f"{name}: {stopped} (case {number}, called with {given})")
        try:
            results.append(read(result, right))
        except ValueError as error:
            return Verdict(False, f"{name}: your function returns {error}")

    def matches(others: Sequence[Any]) -> bool:
        return all(agree(result, other, exercise.tolerance) for result, other in zip(results, others, strict=True))

    if matches(wanted):
        return Verdict(True, f"{name}: right, on all {len(exercise.cases)} cases.")
    for slip in exercise.slips:
        if matches(exercise.on_cases(slip.answer)):
            return Verdict(False, f"{name}: {slip.message}")
    return Verdict(False, f"{name}: {first_difference(results, wanted, exercise.tolerance)}")


def first_difference(results: Sequence[Any], wanted: Sequence[Any], tolerance: float) -> str:
    """A sentence with the first case on which the results are wrong, with as many digits as it takes to see it."""
    for number, (result, right) in enumerate(zip(results, wanted, strict=True), 1):
        if not agree(result, right, tolerance):
            for digits in (4, 7, 17):
                found, is_right = brief_pair(result, right, tolerance, digits)
                if found != is_right:
                    break
            return f"not yet. On case {number} your function gives {found}, the right answer is {is_right}."
    raise AssertionError("called for an answer without a difference")


def brief_pair(result: Any, right: Any, tolerance: float, digits: int) -> tuple[str, str]:
    """Both in short; of tensors of one shape the numbers from the first one that differs."""
    if isinstance(right, tuple):
        pairs = [brief_pair(a, b, tolerance, digits) for a, b in zip(result, right, strict=True)]
        return tuple("(" + ", ".join(parts) + ")" for parts in zip(*pairs, strict=True))
    right, at = torch.as_tensor(right, dtype=torch.float64), 0
    if result.shape == right.shape:
        at = int((~result.isclose(right, rtol=tolerance, atol=tolerance, equal_nan=True)).int().argmax())
    return brief(result, digits, at), brief(right, digits, at)


def brief(value: Any, digits: int = 4, at: int = 0) -> str:
    """A number, or a tensor's shape and three of its numbers from place `at` on."""
    if not isinstance(value, (bool, int, float, Tensor)):
        return repr(value)[:60]
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if tensor.numel() == 1:
        return f"{float(tensor):.{digits}g}"
    numbers = ", ".join(f"{float(v):.{digits}g}" for v in tensor.flatten()[at : at + 3])
    return f"a tensor of shape {tuple(tensor.shape)} that {f'has from place {at} on' if at else 'begins'} {numbers}"
