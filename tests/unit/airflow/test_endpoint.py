"""A connection is one endpoint, however it was written; one error has all its wrong fields."""

from __future__ import annotations

import base64
import json

import pytest
from airflow.sdk import Connection

from pesto_airflow.hooks import Endpoint, endpoint_of
from pesto_runtime.errors import InvalidInput


def connection(**fields: object) -> Connection:
    """A connection of type `pesto`."""
    return Connection(conn_id="c", conn_type="pesto", **fields)  # type: ignore[arg-type]  # judged by Airflow


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "http://mask:8000"}, "http://mask:8000"),
        ({"host": "https://eo.example/mask/api/v1"}, "https://eo.example/mask/api/v1"),
        ({"host": "mask", "port": 8000}, "http://mask:8000"),
        ({"host": "mask", "schema": "https"}, "https://mask"),
    ],
)
def test_a_service_is_named_by_url_or_by_host(fields: dict[str, object], url: str) -> None:
    """Both are what people write into the form."""
    assert endpoint_of(connection(**fields)).url == url


def test_a_uri_of_texts_means_what_the_form_means() -> None:
    """`airflow connections add --conn-uri` has texts where the form has numbers."""
    texts = {"timeout": "5", "retries": "0", "patience": "2.5", "verify": "false"}
    numbers = {"timeout": 5, "retries": 0, "patience": 2.5, "verify": False}
    for extra in (texts, numbers):
        found = endpoint_of(connection(host="http://mask", extra=json.dumps(extra)))
        assert found == Endpoint(
            "http://mask", timeout_s=5, retries=0, patience_s=2.5, verify=False
        )


def test_zero_is_a_number_and_not_the_default() -> None:
    """A connection may forbid to repeat a request, and to wait for a busy service."""
    extra = json.dumps({"retries": 0, "patience": 0})
    found = endpoint_of(connection(host="http://mask", extra=extra))
    assert found == Endpoint("http://mask", retries=0, patience_s=0)
    assert found != Endpoint("http://mask")


def test_empty_fields_mean_their_defaults() -> None:
    """The form sends null for what was left empty."""
    extra = json.dumps(dict.fromkeys(("timeout", "retries", "patience", "verify")))
    assert endpoint_of(connection(host="http://mask", extra=extra)) == Endpoint("http://mask")


def test_credentials_become_a_header_and_stay_out_of_logs() -> None:
    """With a login they are basic, without one a bearer token; no repr shows them."""
    basic = endpoint_of(connection(host="http://mask", login="eo", password="secret"))  # noqa: S106  # not a real one
    _, _, pair = basic.headers["Authorization"].partition("Basic ")
    assert base64.b64decode(pair) == b"eo:secret"
    bearer = endpoint_of(connection(host="http://mask", password="secret"))  # noqa: S106  # not a real one
    assert bearer.headers == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(bearer)
    assert not endpoint_of(connection(host="http://mask", login="eo")).headers


def test_a_service_given_to_the_task_takes_the_rest_of_the_connection() -> None:
    """Replicas and stages share credentials and times."""
    extra = json.dumps({"timeout": 7, "verify": "/etc/ca.pem"})
    found = endpoint_of(connection(extra=extra, password="t"), service="http://other")  # noqa: S106  # not a real one
    assert (found.url, found.timeout_s, found.verify) == ("http://other", 7, "/etc/ca.pem")


def test_one_error_has_all_wrong_fields() -> None:
    """No host, and two fields that are not numbers."""
    extra = json.dumps({"timeout": "soon", "retries": True})
    with pytest.raises(InvalidInput) as caught:
        endpoint_of(connection(extra=extra))
    assert {field.pointer for field in caught.value.fields} == {
        "/host", "/extra/timeout", "/extra/retries"
    }  # fmt: skip
