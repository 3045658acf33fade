"""Tables of pandas as plain values: names and arrays, of which the judge makes a table of its own.

>>> import pandas as pd
>>> table_from_plain(*table_to_plain(pd.DataFrame({"id": [3, 7]})))["id"].tolist()
[3, 7]
"""

from __future__ import annotations

from typing import Any

import numpy as np


def is_table(kinds: tuple[type, ...]) -> bool:
    """Whether these are the classes of a `pandas.DataFrame`; pandas is not imported."""
    return any(kind.__name__ == "DataFrame" and kind.__module__.split(".")[0] == "pandas" for kind in kinds)


def table_to_plain(table: Any) -> tuple:
    """Names and values of the columns, names and values of the index."""
    columns = [table.iloc[:, place].to_numpy() for place in range(table.shape[1])]
    return list(table.columns), columns, list(table.index.names), table.index.to_numpy()


def table_from_plain(names: list, columns: list, index_names: list, index: np.ndarray) -> Any:
    """The table. What could not be sent of a column stands in each of its rows as something that looks like it.

    Raises:
        ValueError or TypeError: these are no parts of a table.
    """
    import pandas as pd

    rows = pd.Index(index.tolist() if index.dtype == object else index)
    values = [one if isinstance(one, np.ndarray) else np.full(len(rows), one, dtype=object) for one in columns]
    table = pd.DataFrame(dict(enumerate(values)), index=rows)
    table.columns, table.index.names = pd.Index(names), index_names
    return table
