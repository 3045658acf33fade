"""The tests that all checks share. A module gives its tables of solutions, and `CheckTests` makes the tests of them."""

from __future__ import annotations

import re
import time
from html import escape
from itertools import chain

from mutation import BAR, report
from quick import mostly_slow

from course_utils.exercises import evaluate, get_exercise, list_exercises
from course_utils.exercises.pictures import as_html
from workshop.grade.judge.plain_pictures import from_plain, to_plain


class CheckTests:
    """To inherit from, with the tables of one notebook's exercises, each by exercise id."""

    right: dict[str, list]  # right solutions, written in as many ways as there are
    wrong: dict[str, dict]  # mistake -> (wrong solution, pattern of the first message, which names the mistake)
    equivalent: dict[str, dict[str, list[str]]]  # reason -> mutants of the reference that are right as well
    pictures: dict[str, dict[str, list[str]]] = {}  # kind of picture -> mistakes that are shown in one
    pictured = "(?!)"  # pattern of first messages that say less than a picture: there is one

    def pytest_generate_tests(self, metafunc):
        if "mistake" in metafunc.fixturenames:
            cases = [(i, kind, name) for i, kinds in self.pictures.items() for kind, names in kinds.items()
                     for name in names]  # fmt: skip
            metafunc.parametrize(("exercise_id", "kind", "mistake"), cases)
        elif "message" in metafunc.fixturenames:
            cases = {f"{i}-{name}": (i, *case) for i, table in self.wrong.items() for name, case in table.items()}
            metafunc.parametrize(("exercise_id", "solution", "message"), cases.values(), ids=cases)
        elif "solution" in metafunc.fixturenames:
            cases = [(exercise_id, solution) for exercise_id, table in self.right.items() for solution in table]
            metafunc.parametrize(("exercise_id", "solution"), cases)
        elif metafunc.function.__name__.startswith("test_mutants"):
            metafunc.parametrize("exercise_id", mostly_slow(self.right, quick=list(self.right)[:1]))
        elif "exercise_id" in metafunc.fixturenames:
            metafunc.parametrize("exercise_id", self.right)

    def test_every_exercise_of_the_notebook_has_solutions_here(self):
        notebook = type(self).__module__.removeprefix("test_notebook_")
        ids = {exercise.id for exercise in list_exercises() if exercise.notebook.startswith(notebook)}
        assert ids == set(self.right) == set(self.wrong)

    def test_the_reference_passes_quickly(self, exercise_id, record_property):
        reference = get_exercise(exercise_id).reference
        evaluate(exercise_id, reference)  # the first call pays for imports
        start = time.thread_time()
        result = evaluate(exercise_id, reference)
        seconds = time.thread_time() - start
        record_property("check_seconds", [exercise_id, seconds])
        assert result.status == "passed", result.messages
        assert seconds < 2.0

    def test_other_right_solutions_pass(self, exercise_id, solution):
        result = evaluate(exercise_id, solution)
        assert result.status == "passed" and result.picture is None, result.messages

    def test_wrong_solutions_fail_with_a_message_that_names_the_mistake(self, exercise_id, solution, message):
        result = evaluate(exercise_id, solution)
        assert result.status == "failed", f"expected a message like {message}"
        assert re.search(message, result.messages[0]), result.messages[0]
        assert len(result.messages[0]) < 600
        if result.picture is None:
            assert not re.search(self.pictured, result.messages[0]), "it needs a picture"
        else:
            assert re.search("found .*expected ", result.picture.alt), "what can be seen is said, too"
            assert len(result.picture.alt) < 600

    def test_mistakes_are_shown_in_a_picture(self, exercise_id, kind, mistake):
        picture = evaluate(exercise_id, self.wrong[exercise_id][mistake][0]).picture
        assert type(picture).__name__ == kind and re.search("found .*expected ", picture.alt)
        again = from_plain(to_plain(picture))  # as grading sends it
        assert as_html(again).count("<img") == (len(picture.panels) if kind == "Panels" else 1)
        assert escape(picture.alt) in as_html(again)

    def test_the_pictures_can_be_drawn(self, exercise_id):
        some = list(self.wrong[exercise_id].values())[::4]
        pictures = [evaluate(exercise_id, solution).picture for solution, _ in some]
        assert all(as_html(picture) for picture in pictures if picture is not None)

    def test_there_are_enough_solutions_of_each_kind(self, exercise_id):
        assert len(self.right[exercise_id]) >= 2 and len(self.wrong[exercise_id]) >= 6

    def test_a_stub_is_still_to_do(self, exercise_id):
        def stub(*_arguments, **_options):
            raise NotImplementedError(f"Exercise {exercise_id}: write it.")

        def half_written(*arguments, **options):
            return stub(*arguments, **options)

        for solution in (stub, half_written):
            result = evaluate(exercise_id, solution)
            assert (result.status, result.messages) == ("todo", (f"Exercise {exercise_id}: write it.",))

    def test_what_is_not_callable_or_returns_nothing_is_named(self, exercise_id):
        assert re.search("^Kind of ", evaluate(exercise_id, [0.5]).messages[0])
        assert re.search("^Type of |^Error: ", evaluate(exercise_id, lambda *_arguments, **_options: None).messages[0])

    def test_mutants_of_the_reference_are_rejected(self, exercise_id, record_property):
        found = report(exercise_id, [*chain(*self.equivalent.get(exercise_id, {}).values())])
        figures = [found.killed, found.timeouts, found.all, found.equivalent, found.seconds]
        record_property("mutants", [exercise_id, *figures])
        survivors = "\n  ".join(found.survivors)
        assert found.all > 0
        assert found.share >= BAR, f"{exercise_id}: only {found.share:.0%} killed. Survivors:\n  {survivors}"
        assert not found.stale, f"{exercise_id}: no survivor needs these entries of EQUIVALENT: {found.stale}"
