"""Who may call what, declared where a path or a method is declared.

A path is added with `add_path`, a gRPC method is marked with `requires`.  What declares nothing is
for administrators alone, so that a forgotten declaration closes a path instead of opening it.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from candor.gateway.access.keys import Scope

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Access(Enum):
    """Rules beside the scopes."""

    PUBLIC = "public"  # without a key: health, the page where a key is entered, styles, scripts
    ANY_KEY = "any key"


Rule = Scope | Access


class DeclaredPath(APIRoute):
    """A path of the REST application together with the rule of who may call it."""

    rule: Rule = Scope.ADMIN


def add_path(
    app: FastAPI, method: str, path: str, endpoint: Callable[..., Any], rule: Rule, **options: Any
) -> None:
    """Adds a path to the application.

    Args:
        options: those of `FastAPI.add_api_route`.
    """
    app.router.add_api_route(
        path, endpoint, methods=[method], route_class_override=DeclaredPath, **options
    )
    route = app.router.routes[-1]
    assert isinstance(route, DeclaredPath)
    route.rule = rule


def add_page(
    app: FastAPI, method: str, path: str, endpoint: Callable[..., Any], rule: Rule
) -> None:
    """Adds a path that is for people and therefore not part of the described API."""
    add_path(app, method, path, endpoint, rule, include_in_schema=False, response_model=None)


def rule_of_path(routes: Iterable[BaseRoute], method: str, path: str) -> Rule:
    """The rule of the path that the router would choose; that of administrators if there is none.

    The whole path must match: an expression that ends in ``$`` would allow one more newline.
    """
    fitting = [
        route for route in routes if isinstance(route, Route) and route.path_regex.fullmatch(path)
    ]
    chosen = next((route for route in fitting if method in (route.methods or ())), None)
    return _declared(chosen or next(iter(fitting), None), Scope.ADMIN)


def requires(rule: Rule) -> Callable[[FunctionT], FunctionT]:
    """Marks a method of a gRPC servicer with the rule of who may call it."""

    def mark(method: FunctionT) -> FunctionT:
        method.rule = rule  # type: ignore[attr-defined]
        return method

    return mark


def rule_of_method(method: Callable[..., Any] | None, default: Rule = Scope.ADMIN) -> Rule:
    """The rule that a servicer's method was marked with, ``default`` if it was not."""
    return _declared(method, default)


def _declared(thing: Any, default: Rule) -> Rule:
    rule: Rule = getattr(thing, "rule", default)
    return rule
