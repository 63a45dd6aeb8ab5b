"""`millstream doctor`: what an operator should know of a machine and of data directories, before it hurts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from millstream.cli.options import Json, examples
from millstream.cli.output import done, fail, out, print_json, progress

if TYPE_CHECKING:
    from millstream.core.broker.doctor import Finding, OpenTransaction

_STYLES: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            "millstream doctor",
            "millstream doctor --data-dir /var/lib/millstream",
            "millstream doctor --config server.properties --json",
            "millstream doctor --data-dir old-kafka-data --abort flights-0:4711",
        )
    )(doctor)


def doctor(
    data_dir: Annotated[
        list[Path] | None,
        typer.Option(
            "--data-dir", "-d", metavar="DIR", exists=True, file_okay=False, help="Look at it too; repeatable."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Check it, and the directories it names.",
        ),
    ] = None,
    abort: Annotated[
        list[str] | None,
        typer.Option(
            "--abort",
            metavar="TOPIC-PARTITION:PRODUCER",
            help="Abort this open transaction, or `all`; the broker must be stopped. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check kernels, limits and data directories, and list open transactions. A problem ends it with code 1."""
    import millstream.core._kernels
    import millstream.schemas._kernels
    from millstream.core.broker.doctor import Finding, abort_transactions, examine
    from millstream.core.config import BrokerConfig, ConfigError

    try:
        loaded = BrokerConfig.load(config) if config is not None else None
    except ConfigError as error:
        fail(str(error))
    directories = [*(data_dir or ()), *(loaded.log_dirs if loaded is not None else ())]
    with progress("examining", unit="findings") as advance:
        findings = list(
            _counted(examine(directories, loaded, [millstream.core._kernels, millstream.schemas._kernels]), advance)
        )
        transactions, running = _transactions(directories)
    if running is not None:
        if abort:
            fail(running)
        findings.append(Finding("note", "transactions", f"not looked at: {running}"))
    chosen = [one for one in transactions if _is_chosen(one, abort or ())]
    if abort and "all" not in abort and len(chosen) < len(set(abort)):
        known = ", ".join(map(_name, transactions)) or "none"
        fail(f"there is no such open transaction as {', '.join(abort)}; open are: {known}")
    if chosen:
        abort_transactions(directories, chosen)
    if as_json:
        print_json(
            {
                "findings": [asdict(finding) for finding in findings],
                "open_transactions": [
                    {**asdict(transaction), "aborted": transaction in chosen} for transaction in transactions
                ],
            }
        )
    else:
        _print(findings, transactions, chosen)
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        fail(f"{problems} {'problem' if problems == 1 else 'problems'} found")


def _transactions(directories: Sequence[Path]) -> tuple[list[OpenTransaction], str | None]:
    """Return the open transactions, or why nobody can say: a broker runs on the directories."""
    from millstream.core.broker.doctor import open_transactions
    from millstream.core.log.errors import InconsistentDirectoryError, LogLockedError

    if not directories:
        return [], None
    try:
        return open_transactions(directories), None
    except (LogLockedError, InconsistentDirectoryError) as error:
        return [], str(error)


def _counted(findings: Iterator[Finding], advance: object) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        assert callable(advance)
        advance(1)


def _is_chosen(transaction: OpenTransaction, wanted: Sequence[str]) -> bool:
    return "all" in wanted or _name(transaction) in wanted


def _name(transaction: OpenTransaction) -> str:
    return f"{transaction.topic}-{transaction.partition}:{transaction.producer_id}"


def _print(
    findings: Sequence[Finding], transactions: Sequence[OpenTransaction], aborted: Sequence[OpenTransaction]
) -> None:
    console = out()
    # On a terminal long findings go on below themselves, so that the levels stand alone on the left.
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        style = _STYLES[finding.level]
        level = f"[{style}]{finding.level:<7}[/{style}]"
        text = f"[bold]{escape(finding.subject)}[/bold]: {escape(finding.text)}"
        if console.is_terminal:
            table.add_row(level, text)
        else:
            console.print(f"{level}  {text}", soft_wrap=True)
    if console.is_terminal:
        console.print(table)
    for transaction in transactions:
        state = "aborted" if transaction in aborted else f"open since offset {transaction.first_offset}"
        done(f"transaction {_name(transaction)}: {state}")
