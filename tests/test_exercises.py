"""Every exercise of the book: right answers are accepted, every known slip is named, nonsense is refused."""

import re
from itertools import combinations

import pytest
import torch

from diffusion_edu.exercises import CHAPTERS, Exercise, Slip, agree, check, exercises

ALL = list(exercises().values())
SLIPS = [(exercise, slip) for exercise in ALL for slip in exercise.slips]


def names(value) -> str:
    return value.name if isinstance(value, (Exercise, Slip)) else str(value)


def same_everywhere(exercise: Exercise, left, right) -> bool:
    return all(agree(left(*case), right(*case), exercise.tolerance) for case in exercise.cases)


def test_every_chapter_has_exercises_with_names_of_their_own():
    assert len(ALL) == sum(len(__import__(f"diffusion_edu.exercises.{c}", fromlist=["x"]).EXERCISES) for c in CHAPTERS)
    for chapter in CHAPTERS:
        assert sum(exercise.name.startswith(f"{chapter}-") for exercise in ALL) >= 3


@pytest.mark.parametrize("exercise", ALL, ids=names)
def test_the_right_answer_is_accepted(exercise):
    verdict = check(exercise.name, exercise.answer)
    assert verdict.right and repr(verdict).startswith("✓"), verdict


@pytest.mark.parametrize("exercise, slip", SLIPS, ids=names)
def test_a_slip_is_refused_with_its_own_sentence(exercise, slip):
    verdict = check(exercise.name, slip.answer)
    assert not verdict.right
    assert verdict.message == f"{exercise.name}: {slip.message}"
    assert repr(verdict).startswith("✗")


@pytest.mark.parametrize("exercise", ALL, ids=names)
def test_slips_can_be_told_apart(exercise):
    assert len(exercise.slips) >= 3
    assert len({slip.message for slip in exercise.slips}) == len(exercise.slips)
    for left, right in combinations(exercise.slips, 2):
        assert not same_everywhere(exercise, left.answer, right.answer), f"{left.name} = {right.name}"
    for slip in exercise.slips:
        assert not same_everywhere(exercise, slip.answer, exercise.answer), f"{slip.name} is right"


@pytest.mark.parametrize("exercise", ALL, ids=names)
def test_an_unknown_wrong_answer_is_refused_with_the_right_number(exercise):
    def off_by_a_little(*case):
        right = exercise.answer(*case)
        shifted = tuple(
            torch.as_tensor(part) * 1.37 + 0.61 for part in (right if isinstance(right, tuple) else (right,))
        )
        return shifted if isinstance(right, tuple) else shifted[0]

    verdict = check(exercise.name, off_by_a_little)
    assert not verdict.right and "the right answer is" in verdict.message


@pytest.mark.parametrize("exercise", ALL, ids=names)
def test_a_result_of_the_wrong_kind_is_refused(exercise):
    assert "returns None" in check(exercise.name, lambda *case: None).message
    for nonsense in ("a word", torch.zeros(5, 5, 5), (1.0, 2.0, 3.0)):
        assert not check(exercise.name, lambda *case, value=nonsense: value).right


@pytest.mark.parametrize("exercise", ALL, ids=names)
def test_an_answer_that_raises_is_told_so(exercise):
    def fails(*case):
        raise ZeroDivisionError("division by zero")

    verdict = check(exercise.name, fails)
    assert not verdict.right and "ZeroDivisionError: division by zero" in verdict.message


def test_an_answer_with_the_wrong_number_of_arguments_is_told_so():
    verdict = check("forward-merge", lambda a: a)
    assert not verdict.right and "TypeError" in verdict.message


def test_unknown_names_and_non_functions_raise():
    with pytest.raises(ValueError, match=re.escape("unknown exercise 'forward-nothing'; known: forward-merge")):
        check("forward-nothing", lambda: 0)
    with pytest.raises(ValueError, match="must be a function, got float"):
        check("forward-merge", 0.5)


def test_agreement_is_strict_about_shape_and_number():
    one = torch.ones(2)
    assert agree(one, one + 1e-9, 1e-6)
    assert not agree(one, one + 1e-3, 1e-6)
    assert not agree(one[:1], one, 1e-6)
    assert agree(torch.tensor(float("nan")), float("nan"), 1e-6)
    assert not agree((1.0,), (1.0, 2.0), 1e-6) and not agree(1.0, (1.0,), 1e-6)
