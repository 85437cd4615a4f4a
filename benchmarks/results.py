"""The document that a run leaves behind: what was measured, on what, and what failed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: of the document's form; readers refuse what they do not know
FORMAT = 1


@dataclass
class PartResult:
    """How one part went.

    Attributes:
        status: `ok`; `partial` where some of its measurements failed; `failed` where it gave nothing.
        seconds: how long it took.
        figures: what it measured, in a form of its own.
        errors: one line for everything that failed.
        skipped: one line for everything that this machine cannot do.
    """

    status: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass
class Results:
    """One run."""

    started: str
    profile: str
    machine: dict[str, Any]
    project: dict[str, Any]
    seconds: float = 0.0
    parts: dict[str, PartResult] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where everything that could be measured was."""
        return 1 if any(part.status != "ok" for part in self.parts.values()) else 0

    def figures(self, part: str) -> dict[str, Any]:
        """What a part measured; empty where it did not run or failed."""
        return self.parts[part].figures if part in self.parts else {}

    def save(self, path: Path) -> None:
        """Write the document as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json())

    def to_json(self) -> str:
        """The document as text."""
        document = {
            "format": FORMAT,
            "started": self.started,
            "seconds": round(self.seconds, 1),
            "profile": self.profile,
            "machine": self.machine,
            "project": self.project,
            "parts": {
                name: {
                    "status": part.status,
                    "seconds": round(part.seconds, 1),
                    "figures": part.figures,
                    "errors": part.errors,
                    "skipped": part.skipped,
                }
                for name, part in self.parts.items()
            },
        }
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read a document.

        Raises:
            ValueError: it is not one, or of another form.
        """
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{path}: expected results of form {FORMAT}; measure again with `make bench`")
        return cls(
            document["started"],
            document["profile"],
            document["machine"],
            document["project"],
            document["seconds"],
            {name: PartResult(**part) for name, part in document["parts"].items()},
        )
