"""What a check found, as a table for a terminal."""

from ray_jobs.dataset.report import DatasetReport


def print_report(report: DatasetReport) -> None:
    """Print counts, fingerprint, warnings and notices. Errors are left to ``raise_for_errors``."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Data set {report.index.source}", title_justify="left")
    table.add_column("")
    for split in report.counts:
        table.add_column(split, justify="right")
    rows = [
        ("images", "images"),
        ("without boxes", "background"),
        ("without label file", "unlabelled"),
        ("boxes", "boxes"),
    ]
    for title, field in rows:
        table.add_row(title, *(f"{getattr(counts, field):,}" for counts in report.counts.values()))
    table.add_section()
    for name in report.index.names:
        table.add_row(name, *(f"{counts.per_class[name]:,}" for counts in report.counts.values()))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"fingerprint {report.fingerprint}", soft_wrap=True)
    for group in report.warnings:
        console.print(f"warning: {group.render()}", markup=False, soft_wrap=True)
    for notice in report.notices:
        console.print(f"notice: {notice}", markup=False, soft_wrap=True)
