"""Grading agrees with "Run all": odd notebooks, executed by a real kernel and graded, have the same verdicts.

All of them: `python3 course.py test -m slow tests/workshop/grade/test_verdicts.py`. A dozen are graded in every run.
"""

import json
import os

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from odd_notebooks import OddNotebook

PARAMETERS = "data_source, profile, output = 'embedded', 'smoke', 'output'"


def kernel_verdicts(notebook: OddNotebook, folder) -> dict[str, str]:
    """The verdicts after "Run all" in a kernel: an error ends its cell, and the record keeps the last check."""
    notebook.write(folder / "work")
    record = folder / "progress.json"
    manager = KernelManager(
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), connection_file=str(folder / "connection.json")
    )
    environment = os.environ | {"COURSE_PROGRESS": str(record), "IPYTHONDIR": str(folder / "ipython")}
    environment |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    environment.pop("COURSE_STRICT", None)
    manager.start_kernel(cwd=str(folder / "work"), env=environment, extra_arguments=["--log-level=50"])
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        for cell in notebook.content["cells"]:
            sources = ["".join(cell["source"])] if cell["cell_type"] == "code" else []
            if "parameters" in cell["metadata"].get("tags", ()):
                sources.append(PARAMETERS)  # as papermill does
            for source in sources:
                client.execute_interactive(
                    source, stop_on_error=False, allow_stdin=False, output_hook=lambda _: None, timeout=600
                )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    return {exercise: entry["status"] for exercise, entry in known.items()}
