"""What is known of a model's records before the first one comes."""

import dataclasses
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from streamapp.records.attributes import fields_of, missing


class Plain(BaseModel):
    price: float
    renamed: float = Field(alias="p")

    @property
    def twice(self) -> float:
        return 2 * self.price

    @computed_field  # type: ignore[prop-decorator]
    @property
    def thrice(self) -> float:
        return 3 * self.price


class Inherited(Plain):
    size: float


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    price: float


class Struct(msgspec.Struct):
    price: float

    @property
    def twice(self) -> float:
        return 2 * self.price


@dataclasses.dataclass
class Data:
    price: float


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Plain, ["price", "renamed", "twice", "thrice"]),
        (Inherited, ["price", "size", "twice"]),
        (Open, ["price", "anything"]),
        (Struct, ["price", "twice"]),
        (Data, ["price"]),
        (dict, ["anything"]),
        (None, ["anything"]),
    ],
)
def test_nothing_that_a_record_may_have_is_missing(model: Any, names: list[str]) -> None:
    assert missing(model, names) == []


@pytest.mark.parametrize("model", [Plain, Inherited, Struct, Data])
def test_what_no_record_has_is_missing(model: Any) -> None:
    assert missing(model, ["price", "prize", "p"]) == ["prize", "p"]


def test_fields_are_told_in_order() -> None:
    assert fields_of(Inherited) == ("price", "renamed", "size")
    assert fields_of(Struct) == fields_of(Data) == ("price",)
    assert fields_of(Open) is None
