"""Errors: the drawn tree is the real one, and every error can be told, copied and sent on."""

from __future__ import annotations

import inspect
import pickle
import re
import traceback

import pytest

from af10_async import errors
from af10_async.errors import AF10Error

CLASSES: dict[str, type[AF10Error]] = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, AF10Error)
}
EXTRAS: dict[str, dict[str, object]] = {
    "APIError": {
        "status": 418,
        "error_code": "E1",
        "error_message": "no",
        "method": "GET",
        "path": "/vehicle",
        "retry_after": 3.0,
    },
    "BadResponseError": {"status": 200, "method": "GET", "path": "/x", "excerpt": "<html>"},
    "StorageError": {"status": 503, "code": "SlowDown"},
    "JobTimeoutError": {"start_certain": True},
    "UnexpectedPayloadError": {"payload": {"rows": [1, 2]}},
    "DownloadRefusedError": {"status": 403, "retry_after": 1.5},
    "UnreachableError": {
        "problem": errors.UnreachableProblem.TIMEOUT,
        "status": 404,
        "url": "https://hooks.example.com",
    },
}
COMMON: dict[str, object] = {"key": "k" * 48, "step": "start", "sent": False, "retryable": True}

every_error = pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)


def fields_of(kind: type[AF10Error]) -> dict[str, object]:
    found = dict(COMMON)
    for parent in kind.__mro__:
        found |= EXTRAS.get(parent.__name__, {})
    return found


def make(kind: type[AF10Error]) -> AF10Error:
    build: type = kind
    error = build("it broke; mend it", **fields_of(kind))
    assert isinstance(error, AF10Error)
    return error


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Each name of the module's drawing, with its parent and the builtin it is said to be too."""
    drawing = (errors.__doc__ or "").split("```")[1]
    found: dict[str, tuple[str | None, str | None]] = {}
    above: list[str] = []
    for line in drawing.strip().splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)", line)
        assert match, line
        depth, name = len(match[1]) // 4, match[2]
        also = re.search(r"\(also an? (\w+)\)", line)
        above[depth:] = [name]
        found[name] = (above[depth - 1] if depth else None, also[1] if also else None)
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real: dict[str, tuple[str | None, str | None]] = {}
    for name, kind in CLASSES.items():
        first, *others = kind.__bases__
        parent = first.__name__ if first is not Exception else None
        real[name] = (parent, others[0].__name__ if others else None)
    assert real == drawn_tree()


def test_every_error_is_exported_and_nothing_else() -> None:
    assert set(errors.__all__) == set(CLASSES)


@every_error
def test_an_error_says_its_sentence_and_its_job(kind: type[AF10Error]) -> None:
    error = make(kind)
    assert error.message == "it broke; mend it"
    assert str(error) == f"it broke; mend it [job {'k' * 48}]"
    error.key = None
    assert str(error) == "it broke; mend it"
    assert kind.__doc__


@every_error
def test_an_error_carries_every_field_it_was_given(kind: type[AF10Error]) -> None:
    error = make(kind)
    assert vars(error) == fields_of(kind)


@every_error
def test_every_error_has_the_four_common_fields_from_the_start(kind: type[AF10Error]) -> None:
    error = kind()
    assert (error.key, error.step, error.retryable) == (None, None, False)
    assert error.sent in (None, True)
    assert (str(error), error.message) == ("", "")


def test_an_error_without_arguments_at_all_has_an_empty_message() -> None:
    error = AF10Error("x")
    error.args = ()
    assert str(error) == ""


@every_error
def test_pickling_keeps_class_text_and_fields(kind: type[AF10Error]) -> None:
    error = make(kind)
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


@every_error
def test_a_fresh_copy_is_equal_but_apart(kind: type[AF10Error]) -> None:
    error = make(kind)
    error.add_note("seen by all")
    try:
        raise error from OSError("below")
    except AF10Error:
        twin = error.fresh()
    assert twin is not error
    assert type(twin) is kind
    assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert twin.__cause__ is error.__cause__
    assert twin.__suppress_context__
    assert error.__traceback__ is not None
    assert twin.__traceback__ is None
    twin.add_note("seen by one")
    twin.step = "redeem"
    assert "seen by one" not in "".join(traceback.format_exception(error))
    assert error.step == "start"


def test_a_fresh_copy_of_an_error_without_notes_has_none() -> None:
    assert not hasattr(AF10Error("x").fresh(), "__notes__")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigurationError", ValueError),
        ("MissingExtraError", ImportError),
        ("RequestTimeoutError", TimeoutError),
        ("CallbackTimeoutError", TimeoutError),
        ("StartTimeoutError", TimeoutError),
        ("DownloadTimeoutError", TimeoutError),
        ("TargetExistsError", FileExistsError),
        ("DiskFullError", OSError),
    ],
)
def test_errors_are_caught_as_the_builtin_they_resemble(
    name: str, builtin: type[Exception]
) -> None:
    with pytest.raises(builtin, match="it broke"):
        raise make(CLASSES[name])
