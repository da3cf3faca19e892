"""The base of every model whose fields the proto describes."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from candor.contracts.descriptions import DESCRIPTIONS

EnumT = TypeVar("EnumT", bound=type[StrEnum])


class Message(BaseModel):
    """A request, a response or a part of one.

    A class and its fields take the descriptions that they do not have themselves from the comments
    in `proto/`, so that `model_fields`, JSON schemas and OpenAPI show them.

    Attributes:
        proto_name: the proto's name of the message, where it is not that of the class.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    proto_name: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        name = cls.proto_name or cls.__name__
        cls.__doc__ = cls.__dict__.get("__doc__") or DESCRIPTIONS.get(name)
        for field_name, field in cls.model_fields.items():
            field.description = field.description or DESCRIPTIONS.get(f"{name}.{field_name}")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of pydantic, which was built before the fields had their descriptions."""
        schema = handler(core_schema)
        own = handler.resolve_ref_schema(schema)
        own.setdefault("description", cls.__doc__)
        for field_name, field in cls.model_fields.items():
            if field.description:
                own["properties"][field_name].setdefault("description", field.description)
        return schema


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """A validator that lets these texts pass."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {value[:60]!r}")
        return value

    return check


def described(proto_name: str = "") -> Callable[[EnumT], EnumT]:
    """A decorator that gives an enum the proto's comments on it and on its values.

    Args:
        proto_name: the proto's name of the enum, where it is not that of the class.  Its values
            carry that name as a prefix: ``GOAL_BTR`` is ``btr``.
    """

    def describe(kind: EnumT) -> EnumT:
        name = proto_name or kind.__name__
        prefix = re.sub("(?<!^)(?=[A-Z])", "_", name).upper()
        values = [f"{m.value}: {DESCRIPTIONS[f'{name}.{prefix}_{m.name}']}" for m in kind]
        kind.__doc__ = "\n".join([DESCRIPTIONS[name], *values])
        return kind

    return describe
