"""``--set dotted.key=value``: changes to a recipe from the command line."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from i2l_model.errors import InputError

_OWN_MESSAGE = re.compile(
    r"(?P<name>\w[\w.]*) \((?P<value>[^)]*)\) (?P<problem>[^;]+); (?P<fix>.+)"
)


def apply_overrides(settings: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings with every ``dotted.key=value`` applied, the later one winning.

    Values are read as YAML, so that ``3``, ``true``, ``null`` and ``[1, 4]`` have their types.

    Args:
        settings: Nested settings as read from a recipe. They are not changed.
        overrides: Items such as "training.steps=200".

    Raises:
        InputError: If an item has no "=", an empty key, a value that is no YAML, or a key which
            goes through a setting that holds a plain value.
    """
    result = _copy(settings)
    for item in overrides:
        path, value = _parse(item)
        _assign(result, path, value, item)
    return result


def validation_problem(
    error: ValidationError, model: type[BaseModel], source: str, prefix: str = ""
) -> InputError:
    """Turn the first problem of a pydantic error into one line with field, value and fix.

    Args:
        error: What pydantic raised for ``model``.
        model: The model that was validated; its field descriptions make the advice.
        source: Where the values came from, e.g. the path of the recipe.
        prefix: Dotted path in front of the field names, for a model inside a larger one.
    """
    details = error.errors(include_url=False)
    first = details[0]
    names = [str(part) for part in first["loc"]]
    field = ".".join([*([prefix] if prefix else []), *names]) or model.__name__
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    kind = first["type"]
    if kind == "missing":
        return InputError(field, "missing", f"is required{more}", f"add it to {source}")
    if kind == "extra_forbidden":
        known = ", ".join(_known_fields(model, names[:-1]))
        return InputError(field, first["input"], f"is no setting{more}", f"use one of: {known}")
    problem = _sentence(first["msg"])
    own = _OWN_MESSAGE.fullmatch(problem) if isinstance(first["input"], dict) else None
    if own:  # a check across settings, which already names field, value and fix
        name = f"{field}.{own['name']}" if names or prefix else own["name"]
        return InputError(name, own["value"], f"{own['problem']}{more}", own["fix"])
    value = "these settings" if isinstance(first["input"], dict) else first["input"]
    about = _description(model, names)
    fix = f"change it in {source} or with --set {field}=VALUE"
    if about:
        fix = f"{fix} ({about})"
    return InputError(field, value, f"is invalid: {problem}{more}", fix)


def _parse(item: str) -> tuple[list[str], Any]:
    key, equals, text = item.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        fix = "write for example --set training.seed=7"
        raise InputError("--set", item, "is not of the form dotted.key=value", fix)
    try:
        return path, yaml.safe_load(text)
    except yaml.YAMLError:
        fix = "put the value in quotes"
        raise InputError("--set", item, "has a value that is no YAML", fix) from None


def _assign(settings: dict[str, Any], path: list[str], value: Any, item: str) -> None:
    node = settings
    for index, part in enumerate(path[:-1]):
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            at = ".".join(path[: index + 1])
            raise InputError("--set", item, f"goes into {at}, which is a plain value",
                             f"set {at} itself")  # fmt: skip
        node = child
    node[path[-1]] = value


def _copy(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(item) if isinstance(item, Mapping) else item for key, item in value.items()}


def _sentence(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return text[:1].lower() + text[1:]


def _model_at(model: type[BaseModel], names: Sequence[str]) -> type[BaseModel] | None:
    """Follow field names into nested models; None where the path leaves the models."""
    for name in names:
        field = model.model_fields.get(name)
        if field is None:
            return None
        nested = _nested_model(field.annotation)
        if nested is None:
            return None
        model = nested
    return model


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known_fields(model: type[BaseModel], names: Sequence[str]) -> list[str]:
    owner = _model_at(model, names)
    return sorted(owner.model_fields) if owner else []


def _description(model: type[BaseModel], names: Sequence[str]) -> str:
    if not names:
        return ""
    owner = _model_at(model, names[:-1])
    field = owner.model_fields.get(names[-1]) if owner else None
    if field is None or not field.description:
        return ""
    return " ".join(field.description.split()).rstrip(".")
