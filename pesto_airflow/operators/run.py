"""Run one chunk of a phase: many tiles in one task, so that Airflow's price is paid once for all.

The run store is the checkpoint, as every whole block is in it: the task keeps no state of its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from airflow.sdk import BaseOperator

from pesto_airflow.errors import PestoRetryPolicy, native_errors
from pesto_airflow.pipelines import holes_of_chunk, name_of_chunk, next_chunks, stage_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, RetryPolicy, XComArg
    from pydantic import JsonValue

    from pesto_runtime.run.records import TileRecord


RETRIES = 2
RETRY_DELAY = timedelta(seconds=10)
POLICY = PestoRetryPolicy()


class RunOperator(BaseOperator):
    """Performs a verb; its errors become Airflow's, and its policy follows what they say.

    Args:
        retries: Tries after the first, where an error says that asking again can help.
        retry_policy: Decides on each failure.
        retry_delay: Until the next try, where neither the error nor a service says.
        kwargs: Any operator's.
    """

    def __init__(
        self,
        *,
        retries: int = RETRIES,
        retry_policy: RetryPolicy | None = POLICY,
        retry_delay: timedelta = RETRY_DELAY,
        **kwargs: object,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            **kwargs,  # type: ignore[arg-type]  # Airflow checks them
        )

    def execute(self, context: Context) -> JsonValue:
        """Perform the verb.

        Raises:
            PestoTaskFailed: asking again cannot help.
            PestoTryAgain: it can.
        """
        with native_errors():
            return self.perform(context)

    def perform(self, context: Context) -> JsonValue:
        """Perform the verb; answers what other tasks are told, small.

        Raises:
            PestoError: it failed.
        """
        raise NotImplementedError


MOST_HOLES_TOLD = 10
CHUNK_NAME = "{{ task.chunk_name }}"


class PestoMapOperator(RunOperator):
    """Computes the tiles of one chunk whose blocks are missing; answers counts.

    Tried or cleared again, it asks only for what is not there: a chunk of a hundred tiles one of
    which failed costs one call. Killed, it stops between tiles.

    Args:
        plan: Href of the plan.
        chunk: Which chunk; `expand` over what the plan operator answers.
        phase: Number of the phase.
        holes: `fail`: the task is red where a tile failed for good, all others being kept.
            `keep`: it is green, and the run ends PARTIAL with the hole listed.
        concurrency: Tiles at once; by default 8 where services are waited for, else 1.
        retries: Tries after the first, where an error says that asking again can help.
        retry_policy: Decides on each failure.
        retry_delay: Until the next try, where neither the error nor a service says.
        map_index_template: What the grid shows of a chunk.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "chunk")

    def __init__(  # noqa: PLR0913  # mapped tasks read defaults off this signature
        self,
        *,
        plan: str | XComArg,
        chunk: int | XComArg,
        phase: int = 0,
        holes: Literal["fail", "keep"] = "fail",
        concurrency: int | None = None,
        retries: int = RETRIES,
        retry_policy: RetryPolicy | None = POLICY,
        retry_delay: timedelta = RETRY_DELAY,
        map_index_template: str | None = CHUNK_NAME,
        **kwargs: object,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            map_index_template=map_index_template,
            **kwargs,
        )
        self.plan = plan
        self.chunk = chunk
        self.phase = phase
        self.holes = holes
        self.concurrency = concurrency
        self._is_stopped = False

    @property
    def chunk_name(self) -> str:
        """The chunk's index and window."""
        return name_of_chunk(str(self.plan), self.phase, int(str(self.chunk)))

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Run the chunk; answers counts of tiles, holes, blocks and bytes.

        Raises:
            TilesFailed: tiles failed for good, and `holes` is `fail`.
            Interrupted: the task was told to stop.
            PestoError: what no tile can be blamed for.
        """
        from pesto_runtime.contract import Chunk
        from pesto_runtime.run.callers import close_callers
        from pesto_runtime.run.chunk import process, tiles_at_once
        from pesto_runtime.run.context import load_context
        from pesto_runtime.run.records import TileObserver

        plan, index = str(self.plan), int(str(self.chunk))
        done = process(
            Chunk(plan=plan, phase=self.phase, start=index, stop=index + 1),
            watch=TileObserver(on_tile=self._tell, should_stop=lambda: self._is_stopped),
            threads=self.concurrency or tiles_at_once(load_context(plan), self.phase),
            holes=self.holes,
        )
        close_callers()
        if done.holes:
            self._tell_holes(holes_of_chunk(plan, self.phase, index))
        counts: dict[str, JsonValue] = done.model_dump(mode="json", exclude={"manifest"})
        return counts

    def on_kill(self) -> None:
        """Stop before the next tile; what is whole is kept."""
        self._is_stopped = True

    def _tell_holes(self, reasons: Sequence[str]) -> None:
        for reason in reasons[:MOST_HOLES_TOLD]:
            self.log.warning("hole: %s", reason)
        if len(reasons) > MOST_HOLES_TOLD:
            more = len(reasons) - MOST_HOLES_TOLD
            self.log.warning("and %d more holes; holes.geojson will have them all", more)

    def _tell(self, record: TileRecord) -> None:
        window = record.window
        place = (window.col_off, window.row_off, window.width, window.height)
        self.log.info("tile %s %s in %.2f s", place, record.state, record.seconds)


class PestoClosePhaseOperator(RunOperator):
    """Folds a phase's reduces, and puts together the rasters that later phases read.

    Answers the indices of the next fan-out's chunks, to map over.

    Args:
        plan: Href of the plan.
        phase: Number of the phase.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(self, *, plan: str | XComArg, phase: int = 0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.phase = phase

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Close the phase; what has holes is left out, and told.

        Raises:
            PestoError: a process refuses to finish, or the store cannot be written.
        """
        from pesto_runtime.run.callers import close_callers
        from pesto_runtime.run.closing import close_phase

        plan = str(self.plan)
        unmade = close_phase(plan, self.phase)
        close_callers()
        if unmade:
            self.log.warning("not made, as what they read has holes: %s", ", ".join(unmade))
        return [*next_chunks(plan, after=self.phase)]


class PestoCallOperator(RunOperator):
    """Performs a stage without images, once; answers its values.

    Args:
        plan: Href of the plan.
        stage: Id of the stage.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "stage")

    def __init__(self, *, plan: str | XComArg, stage: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.stage = stage

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Call.

        Raises:
            NotFound: a value that it needs was not made.
            PestoError: the process fails.
        """
        from pesto_runtime.run.callers import close_callers
        from pesto_runtime.run.closing import call

        plan = str(self.plan)
        call(plan, self.stage)
        close_callers()
        return {**stage_values(plan, self.stage)}
