"""CSV: what goes in is read back, and nothing in it is a formula."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from footfall.export import FORMULA_STARTS, csv_lines

# a line end in a cell may come back as another one
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")) | st.sampled_from(
    ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", '"=1"', "a,b", 'a"b', "a\nb", "'=1"]
)
cells = texts | st.integers() | st.booleans() | st.none()
tables = st.lists(st.text("abc", min_size=1), min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, cells)), min_size=1, max_size=4)
)


@given(tables)
def test_a_table_is_read_back_and_no_text_begins_like_a_formula(table: list[dict[str, object]]) -> None:
    header, *lines = csv.reader(io.StringIO("".join(csv_lines(table)), newline=""))
    assert header == list(table[0])
    assert len(lines) == len(table)
    for line, row in zip(lines, table, strict=True):
        for found, value in zip(line, map(row.get, header), strict=True):
            if isinstance(value, str):
                assert found in (value, f"'{value}")
                assert not found.startswith(FORMULA_STARTS)
            else:
                assert found == ("" if value is None else str(value).lower())


def test_no_rows_are_no_lines() -> None:
    assert list(csv_lines([])) == []
