"""The table of the chain that won a population's search: its settings interval by interval, and the search's price."""

from __future__ import annotations

import pandas as pd

from reports.analysis.population import count_search_epochs, find_best_chain, list_values
from reports.format.table import Table
from reports.format.values import format_value
from reports.load import Cell, StudyRecords


def make_tables(records: StudyRecords) -> list[Table]:
    """Return the table of the best chain of each cell that a population searches."""
    return [make_chain_table(records, cell) for cell in records.cells if cell.population]


def make_chain_table(records: StudyRecords, cell: Cell) -> Table:
    """Return the intervals of the best member's chain, with whom it copied."""
    metric, chain = records.get_metric(records.metric), find_best_chain(records, cell)
    values = list_values(chain)
    rows, member = [], None
    for position, (_, link) in enumerate(chain.iterrows()):
        copied = f"a copy of {member}" if position and link["member"] != member else ""
        member = int(link["member"])
        epochs = f"{link['start_epoch'] + 1:.0f}–{link['end_epoch']:.0f}"
        settings = (format_value(of[position]) for of in values.values())
        rows.append((epochs, str(link["number"]), f"{member}", copied, *settings, metric.format(link[records.metric])))
    return Table(
        name=f"search-{cell.name}",
        caption=f"{cell.name}: the chain that won among {cell.population} members",
        columns=("epochs", "trial", "member", "", *values, metric.label),
        align="lrrl" + "r" * (len(values) + 1),
        rows=tuple(rows),
        notes=(*_format_schedules(chain), _compare_epochs(records, cell)),
    )


def _format_schedules(chain: pd.DataFrame) -> list[str]:
    """Return each setting's schedule as a space file has it, where all intervals are equally long."""
    lengths = set(chain["end_epoch"] - chain["start_epoch"])
    if len(lengths) != 1:
        return []
    written = (
        f"{name} = Values({', '.join(f'{value:.4g}' for value in values)})"
        for name, values in list_values(chain).items()
    )
    return [f"In a space file: {'; '.join(written)}. Confirm trains this schedule from scratch."]


def _compare_epochs(records: StudyRecords, cell: Cell) -> str:
    """Return the price of this search and of the others in epochs, and whether all may have as many."""
    epochs = dict(count_search_epochs(records, cell.student))
    own, most = epochs.pop(cell.arm), (cell.population or 0) * records.get_budget("epochs")
    others = ", ".join(f"{count:,} for {arm}" for arm, count in epochs.items())
    price = f"The search trained {own:,} of at most {most:,} epochs" + (f", compared with {others}" if others else "")
    if (cell.population or 0) < records.get_budget("trials"):
        allowed = records.get_budget("trials") * records.get_budget("epochs")
        return f"{price}. Not equal: the other searches may train {allowed:,}."
    fewer = "; trials that were stopped or failed trained fewer" if {own, *epochs.values()} != {most} else ""
    return f"{price}. Every search may train as many{fewer}."
