"""After a pass: the student's code beside the course's, and what differs in kind, as far as syntax trees tell it."""

from __future__ import annotations

import ast
import builtins
import html
import inspect
import linecache
import re
import textwrap
from typing import Any

from course_utils.exercises.registry import Exercise, list_exercises

# what a sentence calls them, and what they are in the tree
_LOOPS = {"`while` loop": ast.While, "`for` loop": ast.For,
          "comprehension": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)}  # fmt: skip
_BOX = "border: 1px solid #888; padding: 0.5em; white-space: pre-wrap; overflow-wrap: anywhere; font: 0.85em monospace;"


def comparison(exercise: Exercise, submission: Any) -> str:
    """A folded part of the box, as HTML; "" if both are the same code, or the source of one cannot be found."""
    try:
        own, course = source(submission, with_helpers=True), source(exercise.reference)
        said = " ".join(differences(own, course))
    except Exception:  # whatever a student's object is
        return ""
    if ast.dump(ast.parse(own)) == ast.dump(ast.parse(course)):
        return ""
    sides = "".join(
        f'<div style="flex: 1 1 24em; min-width: 0;"><strong>{title}</strong>'
        f'<pre style="{_BOX}">{html.escape(code)}</pre></div>'
        for title, code in (("Yours", own), ("The course's", course))
    )
    return (
        f"<details><summary>Compare with the course's code</summary><p>{with_code(said)}</p>"
        f'<div style="display: flex; flex-wrap: wrap; gap: 1em;">{sides}</div></details>'
    )


def with_code(text: str) -> str:
    """The text as HTML, and what stands between backticks in it as code."""
    return re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))


def source(definition: Any, with_helpers: bool = False) -> str:
    """The code of a function or class without docstrings; `with_helpers` those of the same cell that it uses.

    Raises an error (of any type) if it cannot be found.
    """
    definition = inspect.unwrap(definition)
    methods = [definition] if hasattr(definition, "__code__") else filter(inspect.isfunction, vars(definition).values())
    code = next(iter(methods)).__code__
    lines = linecache.getlines(code.co_filename)
    nodes = [node for node in ast.parse("".join(lines)).body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    parts = [next(node for node in nodes if node.end_lineno >= code.co_firstlineno)]
    name = "<lambda>" if isinstance(getattr(parts[0], "value", None), ast.Lambda) else getattr(parts[0], "name", "")
    if name != definition.__name__:
        raise ValueError("made by another function")
    taken = {exercise.name for exercise in list_exercises()}
    for part in parts if with_helpers else ():  # grows
        used = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)} - taken
        parts += [node for node in nodes if getattr(node, "name", "") in used and node not in parts]
    return "\n\n".join(_without_docstrings(part, lines) for part in parts)


def _without_docstrings(part: ast.stmt, lines: list[str]) -> str:
    hidden = set()
    for node in ast.walk(part):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) and len(node.body) > 1:
            hidden |= {*range(node.body[0].lineno, node.body[0].end_lineno + 1)}
    first = min([part.lineno, *(node.lineno for node in getattr(part, "decorator_list", []))])
    kept = [lines[number - 1] for number in range(first, part.end_lineno + 1) if number not in hidden]
    return re.sub(r"[ \t]+# given$", "", textwrap.dedent("".join(kept)).strip(), flags=re.MULTILINE)


def differences(own: str, course: str) -> list[str]:
    """Sentences on what differs in kind; each says only what can be seen in the two texts."""
    trees = [ast.parse(text) for text in (own, course)]
    said = []
    loops = [[name for name, kinds in _LOOPS.items() if any(isinstance(node, kinds) for node in ast.walk(tree))]
             for tree in trees]  # fmt: skip
    if loops[0] != loops[1]:
        has = [f"has a {' and a '.join(kinds)}" if kinds else "has no loop" for kinds in loops]
        over = {type(node.iter) for node in ast.walk(trees[0]) if isinstance(node, (ast.For, ast.comprehension))}
        why = "" if loops[1] or over <= {ast.Tuple, ast.List} else ": it works on whole arrays at once"
        said.append(f"Yours {has[0]}; the course's {has[1]}{why}.")
    calls = [_library_calls(tree) for tree in trees]
    used = [{node.attr if isinstance(node, ast.Attribute) else node.id for node in ast.walk(tree)
             if isinstance(node, (ast.Attribute, ast.Name))} for tree in trees]  # fmt: skip
    for who, names, elsewhere in (("the course's", calls[1], used[0]), ("yours", calls[0], used[1])):
        if only := [f"`{call}`" for name, call in names.items() if name not in elsewhere][:4]:
            said.append(f"Only {who} calls {', '.join(only)}.")
    guards = [any(isinstance(node, (ast.Raise, ast.Assert)) for node in ast.walk(tree)) for tree in trees]
    if not guards[0] and (guards[1] or "check_arguments(" in course):
        said.append("The course's first checks its arguments, so that a caller's mistake gets a clear message.")
    n_lines = [len(re.findall(r"^\s*[^\s#]", text, re.MULTILINE)) for text in (own, course)]
    if not said:
        said.append(f"Both have {'the same kinds of loops' if loops[0] else 'no loop'} and call the same functions.")
    return [*said, f"Yours has {n_lines[0]} {'line' if n_lines[0] == 1 else 'lines'}, the course's {n_lines[1]}."]


def _library_calls(tree: ast.AST) -> dict[str, str]:
    """Calls of what the code does not define itself: last name -> as written, such as "np.pad"."""
    nodes = [*ast.walk(tree)]
    local = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    local |= {getattr(node, "name", "") for node in nodes if not isinstance(node, ast.alias)}
    found = {}
    for node in nodes:
        written = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        root, _, name = written.partition(".")[0], *written.rpartition(".")[1:]
        if re.fullmatch(r"[A-Za-z_][\w.]*", written) and root not in local and not hasattr(builtins, root):
            found.setdefault(name, written)
    return {name: call for name, call in found.items() if name not in ("check_arguments", "as_list", "check_logits")}
