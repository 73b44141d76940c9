"""Define the operators that run a plan: the tiles of a chunk, the end of a phase, a single call.

They store no state in Airflow: every complete block is in the run store, the only checkpoint. The
operators that write files are in `outputs`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Unpack

from airflow.sdk import BaseOperator

from pesto_airflow.connections import RunConnections
from pesto_airflow.errors import PestoRetryPolicy, native_errors
from pesto_airflow.links import PestoReportLink, PestoResultLink, PestoStoreLink
from pesto_airflow.metrics import send_counts
from pesto_airflow.pipelines import (
    bundle_of,
    holes_of_chunk,
    name_of_chunk,
    next_chunks,
    stage_values,
)
from pesto_airflow.progress import ChunkProgress
from pesto_runtime.errors import Interrupted, NotFound, PestoError
from pesto_runtime.hrefs import path_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from airflow.sdk import BaseOperatorLink, Context, RetryPolicy, XComArg
    from pydantic import JsonValue

    from pesto_airflow.arguments import CommonArguments, MappableArguments, RunArguments
    from pesto_runtime.contract import Service

RETRIES = 2
RETRY_DELAY = timedelta(seconds=10)
POLICY = PestoRetryPolicy()
MOST_LOGGED_HOLES = 10
CHUNK_NAME = "{{ task.chunk_name }}"


class RunOperator(BaseOperator):
    """Run one activity; raise its errors as Airflow's, and retry as they require.

    Args:
        retries: Retries, if the error reports that a retry can help.
        retry_policy: Decides on each failure.
        retry_delay: Delay before the next try, if neither the error nor a service sets one.
        pesto_conn_id: Connection of the services that have none in `conn_ids`.
        conn_ids: Process name -> connection of its service, of type `pesto`.
        store_conn_id: Connection of the buckets.
        kwargs: Arguments of every operator.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (
        PestoReportLink(), PestoResultLink(), PestoStoreLink()
    )  # fmt: skip

    def __init__(
        self,
        *,
        retries: int = RETRIES,
        retry_policy: RetryPolicy | None = POLICY,
        retry_delay: timedelta = RETRY_DELAY,
        pesto_conn_id: str | None = None,
        conn_ids: Mapping[str, str] | None = None,
        store_conn_id: str | None = None,
        **kwargs: Unpack[MappableArguments],
    ) -> None:
        super().__init__(
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            **kwargs,
        )
        self.connections = RunConnections(pesto_conn_id, {**(conn_ids or {})}, store_conn_id)

    def execute(self, context: Context) -> JsonValue:
        """Run the activity and return its result.

        Raises:
            PestoTaskFailed: a retry cannot help.
            PestoTryAgain: a retry can help.
        """
        from pesto_runtime.run.builds import code_below
        from pesto_runtime.run.callers import close_callers

        stores = self.connections.stores(read_again=True)
        with native_errors(), stores, code_below(bundle_of(context)):
            try:
                with self._services():
                    return self.perform(context)
            except PestoError as error:
                if not error.retryable and not isinstance(error, Interrupted):
                    self._abandon()
                raise self._explained(error) from error.__cause__
            finally:
                close_callers()

    @contextmanager
    def _services(self) -> Iterator[None]:
        """Call the services of the plan, if there is one, with their connections."""
        services = self.planned_services() if self.connections.are_for_services else {}
        with self.connections.services({name: each.targets for name, each in services.items()}):
            yield

    def planned_services(self) -> Mapping[str, Service]:
        """Return the services of the plan of this task; none if it has no plan.

        Raises:
            NotFound: there is no such plan.
        """
        from pesto_runtime.run.context import load_context

        plan = getattr(self, "plan", None)
        return load_context(str(plan)).plan.services if plan else {}

    def _explained(self, error: PestoError) -> PestoError:
        """Return the error; for a plan on a disk of another machine with the way out."""
        plan = str(getattr(self, "plan", ""))
        is_of_disk = plan.startswith("file:") and isinstance(error, NotFound)
        if not is_of_disk or path_of(plan).exists():
            return error
        return NotFound(
            f"{error.detail}: the task `plan` wrote it, perhaps on another machine; give folder= "
            "and store= in a bucket, or on a disk that all workers share"
        )

    def _abandon(self) -> None:
        """Let other runs have the output folder of a run that has failed."""
        from pesto_runtime.run.context import load_context
        from pesto_runtime.run.ownership import abandon

        with suppress(PestoError):
            plan = getattr(self, "plan", None)
            if isinstance(plan, str):
                abandon(load_context(plan).plan)

    def perform(self, context: Context) -> JsonValue:
        """Run the activity and return a small result for other tasks.

        Raises:
            PestoError: the activity failed.
        """
        raise NotImplementedError


class PestoMapOperator(RunOperator):
    """Compute the tiles of one chunk whose blocks are missing; return the counts.

    One task computes many tiles, so that Airflow's cost per task is paid once. After a retry or a
    clear it computes only missing blocks: a chunk of a hundred tiles, one of which failed, costs
    one call. If it is killed, it stops between tiles.

    Args:
        plan: Href of the plan.
        chunk: Index of the chunk; `expand` over the result of the plan operator.
        phase: Number of the phase.
        holes: `fail`: the task fails if a tile finally failed; the other tiles are stored.
            `keep`: the task succeeds, and the run ends PARTIAL with the hole listed.
        concurrency: Tiles at once; by default 8 if all processes are services, else 1.
        retries: Retries, if the error reports that a retry can help.
        retry_policy: Decides on each failure.
        retry_delay: Delay before the next try, if neither the error nor a service sets one.
        pesto_conn_id: Connection of the services that have none in `conn_ids`.
        conn_ids: Process name -> connection of its service, of type `pesto`.
        store_conn_id: Connection of the buckets.
        map_index_template: Label of the chunk in the grid.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "chunk")

    # Airflow reads the defaults of a mapped task from this signature, so the arguments of the base
    # class are repeated.
    def __init__(  # noqa: PLR0913
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
        pesto_conn_id: str | None = None,
        conn_ids: Mapping[str, str] | None = None,
        store_conn_id: str | None = None,
        map_index_template: str | None = CHUNK_NAME,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            pesto_conn_id=pesto_conn_id,
            conn_ids=conn_ids,
            store_conn_id=store_conn_id,
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
        """Index and window of the chunk; the index alone if the plan cannot be read."""
        # Airflow renders it for failed tasks too: an error here would hide the one of the task.
        with suppress(PestoError), self.connections.stores():
            return name_of_chunk(str(self.plan), self.phase, int(str(self.chunk)))
        return str(self.chunk)

    def perform(self, context: Context) -> JsonValue:
        """Run the chunk; return the counts of tiles, holes, blocks and bytes.

        Raises:
            TilesFailed: tiles finally failed, and `holes` is `fail`.
            Interrupted: the task was killed.
            PestoError: an error that is not that of a single tile.
        """
        from pesto_runtime.contract import Chunk
        from pesto_runtime.run.chunk import process, tiles_at_once
        from pesto_runtime.run.context import load_context
        from pesto_runtime.run.records import TileObserver
        from pesto_runtime.tiling import tile_count

        plan, index = str(self.plan), int(str(self.chunk))
        context_of_run = load_context(plan)
        phase = context_of_run.plan.phases[self.phase]
        progress = ChunkProgress(tile_count(phase.chunks[index], phase.tile), self.log.info)
        begun = time.monotonic()
        result = process(
            Chunk(plan=plan, phase=self.phase, start=index, stop=index + 1),
            watch=TileObserver(on_tile=progress.count, should_stop=lambda: self._is_stopped),
            threads=self.concurrency or tiles_at_once(context_of_run, self.phase),
            holes=self.holes,
        )
        progress.end()
        seconds = time.monotonic() - begun
        if result.holes:
            self._log_holes(holes_of_chunk(plan, self.phase, index))
        counts: dict[str, JsonValue] = result.model_dump(mode="json", exclude={"manifest"})
        send_counts(context, counts, seconds)
        return counts

    def on_kill(self) -> None:
        """Stop before the next tile; complete blocks stay stored."""
        self._is_stopped = True

    def _log_holes(self, reasons: Sequence[str]) -> None:
        for reason in reasons[:MOST_LOGGED_HOLES]:
            self.log.warning("hole: %s", reason)
        if len(reasons) > MOST_LOGGED_HOLES:
            more = len(reasons) - MOST_LOGGED_HOLES
            self.log.warning("and %d more holes; holes.geojson will list all of them", more)


class PestoClosePhaseOperator(RunOperator):
    """Fold a phase's reduces, and mosaic or merge the data that later phases read.

    Return the chunk indices of the next fan-out, to map over.

    Args:
        plan: Href of the plan.
        phase: Number of the phase.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(
        self, *, plan: str | XComArg, phase: int = 0, **kwargs: Unpack[RunArguments]
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.phase = phase

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Close the phase; values that would read holes are skipped and logged.

        Raises:
            PestoError: a process rejects its last step, or the store is not writable.
        """
        from pesto_runtime.run.closing import close_phase

        plan = str(self.plan)
        skipped = close_phase(plan, self.phase)
        if skipped:
            self.log.warning("skipped, as their inputs have holes: %s", ", ".join(skipped))
        return [*next_chunks(plan, after=self.phase)]


class PestoCallOperator(RunOperator):
    """Call a stage without images, once; return its values.

    Args:
        plan: Href of the plan.
        stage: Id of the stage.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "stage")

    def __init__(self, *, plan: str | XComArg, stage: str, **kwargs: Unpack[RunArguments]) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.stage = stage

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Call the stage and return its values.

        Raises:
            NotFound: one of its input values does not exist.
            PestoError: the process fails.
        """
        from pesto_runtime.run.closing import call

        plan = str(self.plan)
        call(plan, self.stage)
        return {**stage_values(plan, self.stage)}
