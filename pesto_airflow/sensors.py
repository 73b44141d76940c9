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
        **arguments: object,
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
        super().__init__(poke_interval=poke_interval, **arguments)  # type: ignore[arg-type]  # Airflow checks them
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
