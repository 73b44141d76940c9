"""Which chunks a mapped task runs over: indices, as their windows are in the plan."""

from __future__ import annotations


def next_chunks(plan: str, *, after: int) -> list[int]:
    """Indices of the chunks of the first phase after one that has any; empty where none has.

    Airflow maps over what a task returns, and over nothing else it leaves: so whoever comes
    before a fan-out answers its indices. 256 of them are 1.2 KB.

    Args:
        plan: Href of the plan.
        after: Number of a phase; -1 for the beginning.

    Raises:
        NotFound: there is no such plan.
    """
    from pesto_runtime.activities import chunks_of, load_context

    count = len(load_context(plan).plan.phases)
    found = (chunks_of(plan, number) for number in range(after + 1, count))
    return [chunk.start for chunk in next(filter(None, found), [])]


def holes_of_chunk(plan: str, phase: int, index: int) -> list[str]:
    """Why each tile of a chunk that failed for good did so; empty where none did.

    Raises:
        NotFound: there is no such plan, or the chunk has not run.
    """
    from pesto_runtime.activities import load_context
    from pesto_runtime.activities.context import manifest_name
    from pesto_runtime.contract import Hole

    context = load_context(plan)
    manifest = context.store.get_json(manifest_name(context, phase, index, index + 1))
    holes = manifest["holes"] if isinstance(manifest, dict) else []
    found = (Hole.model_validate(each) for each in (holes if isinstance(holes, list) else []))
    return [str(hole.error["detail"]) for hole in found]


def name_of_chunk(plan: str, phase: int, index: int) -> str:
    """What the grid shows of a chunk: its window (col_off, row_off, width, height).

    Raises:
        NotFound: there is no such plan.
    """
    from pesto_runtime.activities import load_context

    window = load_context(plan).plan.phases[phase].chunks[index]
    return f"{index}: col {window.col_off} row {window.row_off}, {window.width} x {window.height}"
