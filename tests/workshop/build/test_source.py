"""Reading a source: its cells, with their lines."""

from __future__ import annotations

import jupytext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_course import SOURCE, make_course

from workshop.build.source import BuildError, read_cells

HEADER = "# ---\n# jupyter:\n#   jupytext:\n#     cell_markers: region,endregion\n# ---\n\n"


def test_cells_have_type_text_markers_tags_and_lines(tmp_path):
    source = HEADER + SOURCE.replace("# ## The end", '"""\nTriple-quoted text.\n"""')
    cells, lines = read_cells(make_course(tmp_path, source)), source.splitlines()
    kinds = "markdown code code markdown markdown code code markdown markdown markdown code code"
    assert [cell.kind for cell in cells] == kinds.split()
    assert cells[0].source.startswith("# Tiny notebook, größer als nichts\n\nSee ")
    assert cells[9].source == "Triple-quoted text."
    markers = [cell.markers for cell in cells if cell.markers]
    names = ["expected", "exercise", "check", "question", "answer"]
    assert markers == [{name: "2a" if name in names[3:] else "2.4"} for name in names]
    assert cells[2].tags == ("parameters",) and cells[10].tags == ("optional", "nbval-skip")
    assert [lines[cell.line - 1] for cell in cells] == [line for line in lines if line.startswith("# %%")]
    assert lines[cells[9].line_of(0) - 1] == "Triple-quoted text."
    assert lines[cells[2].line_of(2) - 1] == "seed = 0"


def test_a_file_with_byte_order_mark_and_windows_line_ends_gives_the_same_cells(tmp_path):
    unix, windows = tmp_path / "unix.py", tmp_path / "windows.py"
    unix.write_bytes(SOURCE.encode())
    windows.write_bytes(b"\xef\xbb\xbf" + SOURCE.replace("\n", "\r\n").encode())
    assert read_cells(unix) == read_cells(windows)


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    path = make_course(tmp_path)
    path.write_bytes(SOURCE.encode("latin-1"))
    with pytest.raises(BuildError, match=r"solutions/02_unet\.py: not UTF-8"):
        read_cells(path)


code_lines = st.sampled_from(
    ["x = 1", "", "    y = 2", '"""', "s = '''%%'''", "# a comment", "# plain %% text", 'it\'s "odd"']
)
text_lines = st.sampled_from(["# a", "#", "# ## Title", "#no space", "# ```", "# `code` it's", ""])
text_markers = st.sampled_from(["# %% [markdown]", '# %% [markdown] question="9a"'])
blocks = st.lists(
    st.tuples(st.just("# %%"), st.lists(code_lines, max_size=5))
    | st.tuples(text_markers, st.lists(text_lines, max_size=5)),
    min_size=1,
    max_size=6,
)


@given(blocks, st.booleans())
@settings(max_examples=300)
def test_cells_and_lines_agree_with_jupytext(tmp_path_factory, blocks, with_header):
    lines = HEADER.split("\n")[:-1] if with_header else []
    for marker, body in blocks:
        lines += [marker, *body]
    path = tmp_path_factory.mktemp("source", numbered=True) / "09_any.py"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = jupytext.reads("\n".join(lines) + "\n", fmt="py:percent").cells
    starts = [n for n, line in enumerate(lines, 1) if line.startswith("# %%")]
    if len(expected) != len(starts):  # a string that was opened and not closed swallows the next cell
        with pytest.raises(BuildError, match="inside a string"):
            read_cells(path)
        return
    cells = read_cells(path)
    assert [(cell.kind, cell.source.strip()) for cell in cells] == [(c.cell_type, c.source.strip()) for c in expected]
    assert [cell.line for cell in cells] == starts
    for cell in cells:
        for row, text in enumerate(cell.source.split("\n") if cell.source else []):
            assert lines[cell.line_of(row) - 1].rstrip().endswith(text.rstrip())
