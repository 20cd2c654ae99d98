"""No table of a page is wider than a reader's window, and none loses a cell."""

from benchmark.report.formats import WIDTH, narrowed, table


def test_a_wide_table_becomes_several_that_each_name_their_rows() -> None:
    rows = [{"method": f"m{i}", **{f"column {k}": f"{i}.{k:09d}" for k in range(12)}}
            for i in range(3)]  # fmt: skip
    page = narrowed(f"before\n\n{table(rows)}\n\nafter")
    tables = [part.split("\n") for part in page.split("\n\n")[1:-1]]
    assert len(tables) > 1
    assert all(len(line) <= WIDTH for lines in tables for line in lines)
    assert all(lines[2].startswith("| m0 ") for lines in tables)
    for row in rows:
        assert all(page.count(cell) == 1 for name, cell in row.items() if name != "method")
    assert page.startswith("before\n\n")
    assert page.endswith("\n\nafter")


def test_a_narrow_table_stays_as_it_is() -> None:
    page = table([{"method": "a | b", "bpb": "1.0"}])
    assert narrowed(page) == page


def test_a_column_that_is_too_wide_alone_stands_alone() -> None:
    page = narrowed(table([{"method": "m", "runs": "x" * 200, "n": "3"}]))
    assert [len(part.split("\n")[0].split("|")) - 2 for part in page.split("\n\n")] == [2, 2]


def test_rows_of_one_group_stand_under_its_name() -> None:
    rows = [{"method": name, "n": "3"} for name in ("a", "b", "c")]
    lines = table(rows, groups=["deep", "deep", "wide"]).split("\n")
    assert lines[2:] == ["| **deep** | |", "| a      | 3 |", "| b      | 3 |", "| **wide** | |",
                         "| c      | 3 |"]  # fmt: skip
