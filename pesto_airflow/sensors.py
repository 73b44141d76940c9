"""Wait for a service to be ready, or for a job to end, in a worker or in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Unpack, cast

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf

from pesto_airflow.errors import PestoTaskFailed, native_errors
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.process_call import ServiceCall
from pesto_airflow.triggers import JobEnd, JobPoller, PestoHealthTrigger, PestoJobTrigger
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue

    from pesto_airflow.arguments import SensorArguments


class PestoHealthSensor(BaseSensorOperator):
    """Wait until a service reports `OK`; fail at once if its set-up has failed."""

    template_fields: Sequence[str] = ("service", "pesto_conn_id")
    operator_extra_links = (PestoServiceLink(),)
    ui_color = "#d5e3eb"

    def __init__(
        self,
        *,
        service: str | None = None,
        pesto_conn_id: str | None = None,
        deferrable: bool | None = None,
        poke_interval: float = 5.0,
        **arguments: Unpack[SensorArguments],
    ) -> None:
        """Select a service.

        Args:
            service: As of `PestoProcessOperator`.
            pesto_conn_id: As of `PestoProcessOperator`.
            deferrable: Whether to wait in the triggerer; None for the setting
                `[operators] default_deferrable`.
            poke_interval: Seconds between two requests.
            arguments: Arguments of every sensor.
        """
        super().__init__(poke_interval=poke_interval, **arguments)
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        configured = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = configured if deferrable is None else deferrable

    def service_url(self) -> str:
        """URL of the service, up to and including `/api/v1`."""
        return self._service_call.url

    def execute(self, context: Context) -> None:
        """Wait until the service is ready.

        Raises:
            PestoTaskFailed: as `poke`.
            AirflowSensorTimeout: the service was not ready within `timeout`.
        """
        if not self.deferrable:
            super().execute(context)
        elif not self.poke(context):
            hook = self._service_call.hook
            self.defer(
                trigger=PestoHealthTrigger(
                    service=hook.service,
                    pesto_conn_id=hook.pesto_conn_id,
                    poll_s=self.poke_interval,
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout),
            )

    def execute_complete(self, context: Context, event: dict[str, JsonValue]) -> None:  # noqa: ARG002  # Airflow's
        """End with the health that the triggerer received; raises as `poke` does."""
        self._is_ready(str(event["health"]))

    def poke(self, context: Context) -> bool:  # noqa: ARG002  # Airflow's signature
        """Return whether the service is ready; an unreachable one is not.

        Raises:
            PestoTaskFailed: its set-up failed, or the URL is not that of a service.
        """
        with native_errors():
            try:
                health = self._service_call.hook.health()
            except PestoError as error:
                if not error.retryable:
                    raise
                self.log.info("%s", error)
                return False
        return self._is_ready(health)

    def _is_ready(self, health: str) -> bool:
        if health == "FAILED":
            raise PestoTaskFailed(f"{self.service_url()}: its set-up failed; see its log")
        return health == "OK"

    @property
    def _service_call(self) -> ServiceCall:
        return ServiceCall(service=self.service, pesto_conn_id=self.pesto_conn_id, saved=None)


class PestoJobSensor(BaseSensorOperator):
    """Wait for a job that another task has submitted; its outputs are the result of the task.

    Each request renews the lease of the job, if it has one.
    """

    template_fields: Sequence[str] = ("job_id", "service", "pesto_conn_id")
    operator_extra_links = (PestoServiceLink(),)
    ui_color = "#d5e3eb"

    def __init__(
        self,
        *,
        job_id: str | XComArg,
        service: str | XComArg | None = None,
        pesto_conn_id: str | None = None,
        deferrable: bool | None = None,
        poke_interval: float = 5.0,
        cancel_on_kill: bool = True,
        **arguments: Unpack[SensorArguments],
    ) -> None:
        """Select a job.

        Args:
            job_id: Id of the job: `task.output["job_id"]` of a `PestoProcessOperator` with
                `wait_for_completion=False`.
            service: As of `PestoProcessOperator`.
            pesto_conn_id: As of `PestoProcessOperator`.
            deferrable: Whether to wait in the triggerer; None for the setting
                `[operators] default_deferrable`.
            poke_interval: Seconds between two requests.
            cancel_on_kill: Whether the job is cancelled when the waiting task is marked failed;
                only in the triggerer.
            arguments: Arguments of every sensor.
        """
        super().__init__(poke_interval=poke_interval, **arguments)
        self.job_id = job_id
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        configured = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = configured if deferrable is None else deferrable
        self.cancel_on_kill = cancel_on_kill
        self._poller: JobPoller | None = None

    def service_url(self) -> str:
        """URL of the service, up to and including `/api/v1`."""
        return self._service_call.url

    def execute(self, context: Context) -> object:
        """Wait, and return the outputs of the job, or defer.

        Raises:
            PestoTaskFailed: the job failed, or there is none of this id.
            PestoTryAgain: the error of the job says that a retry may help.
            AirflowSensorTimeout: the job has not ended within `timeout`.
        """
        if self.deferrable:
            self._wait_in_triggerer()
        return super().execute(context)

    def _wait_in_triggerer(self) -> NoReturn:
        hook = self._service_call.hook
        self.defer(
            trigger=PestoJobTrigger(
                str(self.job_id),
                service=hook.service,
                pesto_conn_id=hook.pesto_conn_id,
                poll_s=self.poke_interval,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(
        self,
        context: Context,  # noqa: ARG002  # Airflow's
        event: dict[str, JsonValue],
    ) -> dict[str, JsonValue]:
        """Return the outputs of the job that the triggerer waited for; raises as `execute`."""
        with native_errors():
            JobEnd.parse(event).require_success()
            return self._outputs()

    def poke(self, context: Context) -> bool | PokeReturnValue:  # noqa: ARG002  # Airflow's signature
        """Return whether the job has ended, with its outputs; raises as `execute`."""
        poller = self._poller = self._poller or JobPoller(longest_wait_s=self.poke_interval)
        with native_errors():
            try:
                with self._service_call.client() as client:
                    step = poller.next_step(client.status(str(self.job_id)))
            except PestoError as error:
                self.log.info("job %s: %s", self.job_id, error)
                step = poller.next_step(error)
            if not isinstance(step, JobEnd):
                return False
            step.require_success()
            return PokeReturnValue(is_done=True, xcom_value=self._outputs())

    def _outputs(self) -> dict[str, JsonValue]:
        with self._service_call.client() as client:
            return cast("dict[str, JsonValue]", client.result(str(self.job_id)))

    @property
    def _service_call(self) -> ServiceCall:
        service = None if self.service is None else str(self.service)
        return ServiceCall(service=service, pesto_conn_id=self.pesto_conn_id, saved=None)
