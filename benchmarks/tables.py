"""Text tables, the same on a terminal and in a document."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; the first column is text, the others are figures.

    Raises:
        ValueError: a row has not as many cells as the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"expected {len(head)} cells, got {len(row)}: {row}")
    widths = [max(3, *(len(line[column]) for line in (head, *rows))) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(placed)} |"

    rule = [("-" * (width - 1) + ":") if column else "-" * width for column, width in enumerate(widths)]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *(line(row) for row in rows)])


def figure(value: float | None, unit: str = "") -> str:
    """A number as people read it: thousands apart, no more digits than it deserves; a dash where there is none."""
    if value is None:
        return "-"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{text} {unit}".rstrip()
