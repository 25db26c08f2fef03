"""Telling what happens: a tick or a cross for each claim, and one table at the end."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table

_TICK: Final = "[green]✔[/green]"
_CROSS: Final = "[red]✘[/red]"


@dataclass(frozen=True, slots=True)
class Step:
    """One claim and whether it held."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Narrator:
    """Collects steps; prints them for people, or one JSON object at the end."""

    as_json: bool
    steps: list[Step] = field(default_factory=list)
    brokers: list[str] = field(default_factory=list)
    revoke_to_cut_s: list[float] = field(default_factory=list)
    _console: Console = field(default_factory=lambda: Console(highlight=False))
    _started: float = field(default_factory=time.perf_counter)

    def chapter(self, title: str) -> None:
        """Begin a part."""
        if not self.as_json:
            self._console.print(f"\n[bold]{title}[/bold]")

    def say(self, sentence: str) -> None:
        """Say what is going on."""
        if not self.as_json:
            self._console.print(f"  [dim]{sentence}[/dim]")

    def claim(self, name: str, ok: bool, detail: str = "") -> None:  # noqa: FBT001 - the claim itself
        """Record a claim and show it."""
        self.steps.append(Step(name, ok, detail))
        if not self.as_json:
            said = f"[dim]: {_plain(detail)}[/dim]" if detail else ""
            self._console.print(f"  {_TICK if ok else _CROSS} {_plain(name)}{said}")

    @property
    def ok(self) -> bool:
        """Whether every claim held, and there were some."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def finish(self, *, kept: str) -> None:
        """Print the end: a table for people, an object for programs."""
        if self.as_json:
            print(
                json.dumps(
                    {
                        "steps": [asdict(step) for step in self.steps],
                        "brokers": self.brokers,
                        "revoke_to_cut_s": self.revoke_to_cut_s,
                    },
                ),
            )
            return
        table = Table(title="What was shown", show_lines=False)
        table.add_column("")
        table.add_column("claim")
        for step in self.steps:
            table.add_row(_TICK if step.ok else _CROSS, _plain(step.name))
        self._console.print()
        self._console.print(table)
        cuts = ", ".join(f"{seconds:.2f} s" for seconds in self.revoke_to_cut_s)
        held = sum(step.ok for step in self.steps)
        self._console.print(f"brokers: {', '.join(self.brokers)}")
        self._console.print(f"from `authd revoke` to each live session gone: {cuts}")
        elapsed_s = time.perf_counter() - self._started
        self._console.print(f"{held} of {len(self.steps)} claims held, in {elapsed_s:.0f} s")
        self._console.print(
            "\nWhere to look next: README.md, docs/ (specification, reason codes, decisions),"
            "\n`authd init` and `authd up --broker` for a domain of your own."
            f"\n{kept}",
        )
        sys.stdout.flush()


def _plain(text: str) -> str:
    # What comes from outside must not be read as markup.
    return text.replace("[", r"\[")
