"""Wait for a service to be ready, in a worker or in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import BaseSensorOperator, conf

from pesto_airflow.errors import PestoTaskFailed, native_errors
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.process_call import ServiceCall
from pesto_airflow.triggers import PestoHealthTrigger
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue


class PestoHealthSensor(BaseSensorOperator):
    """Wait until a service says `OK`; one whose set-up has failed fails the task at once."""

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
        **arguments: object,
    ) -> None:
        """Name a service.

        Args:
            service: As of `PestoProcessOperator`.
            pesto_conn_id: As of `PestoProcessOperator`.
            deferrable: Whether to wait in the triggerer; `[operators] default_deferrable` decides
                where it is None.
            poke_interval: Seconds between two looks.
            arguments: Of every sensor.
        """
        super().__init__(poke_interval=poke_interval, **arguments)  # type: ignore[arg-type]  # Airflow judges them
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        configured = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = configured if deferrable is None else deferrable

    def service_url(self) -> str:
        """Address of the service, up to and with `/api/v1`."""
        return self._calling.url

    def execute(self, context: Context) -> None:
        """Wait; raises as `poke` does, or `AirflowSensorTimeout`."""
        if not self.deferrable:
            super().execute(context)
        elif not self.poke(context):
            hook = self._calling.hook
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
        """End as the triggerer found it; raises as `poke` does."""
        self._is_ready(str(event["health"]))

    def poke(self, context: Context) -> bool:  # noqa: ARG002  # nothing of the run matters
        """Whether it is ready; one that does not answer is not.

        Raises:
            PestoTaskFailed: its set-up failed, or what answers is no such service.
        """
        with native_errors():
            try:
                health = self._calling.hook.health()
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
    def _calling(self) -> ServiceCall:
        return ServiceCall(service=self.service, pesto_conn_id=self.pesto_conn_id, saved=None)
