"""Results that stay: JSON and plot beside the harness, tables in the document."""

import re
import shutil
import tempfile
from pathlib import Path

from benchmarks.machine import label
from benchmarks.report import report
from benchmarks.results import Results

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def publish(results: Results, folder: Path = RESULTS, document: Path = DOCUMENT) -> list[Path]:
    """Keep a run under `<date>-<machine>`, and put its tables into the document; what was written."""
    name = f"{results.started[:10]}-{label(results.machine)}"
    written = [folder / f"{name}.json"]
    results.save(written[0])
    plots = write_plot(results, folder / f"{name}.png")
    document.write_text(with_results(document.read_text(), results, plots[0].name if plots else None, name))
    return [*written, *plots, document]


def write_plot(results: Results, path: Path) -> list[Path]:
    """The plot, where there is something to plot and matplotlib is installed."""
    try:
        from benchmarks.plot import plot
    except ImportError:
        print("no plot: matplotlib is not installed (extra `dev`)")
        return []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / path.name
        if not plot(results, picture):
            return []
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(picture, path)
    return [path]


def with_results(text: str, results: Results, picture: str | None, name: str) -> str:
    """The document with the part between its two marks replaced.

    Raises:
        ValueError: it does not have the two marks.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected one `{BEGIN}` and one `{END}` in the document")
    image = f"![Figures of the run](../benchmarks/results/{picture})\n\n" if picture else ""
    source = f"All figures: [{name}.json](../benchmarks/results/{name}.json).\n\n"
    between = f"{BEGIN}\n\n{source}{image}{report(results)}\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: between, text, flags=re.DOTALL)
