import re

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from streamapp.clock import SystemClock
from streamapp.metrics import Metrics
from streamapp.settings import Settings
from streamapp.views.application import attach
from streamapp.views.openapi import build_document
from tests.fakes.queries import FakeQueries
from tests.unit.views.conftest import CheckedClient


async def test_document_is_valid_openapi_31(client: CheckedClient) -> None:
    _, body, _ = await client.get("/openapi.json")
    assert body["openapi"].startswith("3.1")
    validate(body)


def test_document_is_valid_without_any_table() -> None:
    validate(build_document([], 100))


def test_every_route_is_documented_and_nothing_else() -> None:
    routes = attach(web.Application(), FakeQueries(), Settings(), Metrics(), SystemClock())
    document = build_document(FakeQueries().tables(), 100)
    documented = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in ("get", "post", "delete")
    }
    assert {(route.method, route.template) for route in routes} == documented


def test_path_parameters_are_declared() -> None:
    for path, item in build_document(FakeQueries().tables(), 100)["paths"].items():
        declared = {parameter["name"] for parameter in item.get("parameters", ())}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_operations_have_their_own_names() -> None:
    paths = build_document(FakeQueries().tables(), 100)["paths"].values()
    names = [item[method]["operationId"] for item in paths for method in item if method in ("get", "post")]
    assert len(names) == len(set(names))


async def test_readings_of_each_table_have_a_schema_of_their_own(client: CheckedClient) -> None:
    from jsonschema import Draft202012Validator, ValidationError

    _, body, _ = await client.get("/v1/tables/latest/keys/coinbase:BTC-USD")
    schema = {"$ref": "#/components/schemas/Reading", "components": client.document["components"]}
    Draft202012Validator(schema).validate(body)
    for broken in (
        {**body, "value": {**body["value"], "extra": 1}},
        {**body, "value": {**body["value"], "price": "text"}},
        {**body, "table": "candles_1m"},
        {name: body[name] for name in body if name != "freshness"},
    ):
        with pytest.raises(ValidationError):
            Draft202012Validator(schema).validate(broken)
