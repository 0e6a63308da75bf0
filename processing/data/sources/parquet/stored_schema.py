"""Whether a parquet file has the columns of the schema: what is missing, unknown or of another type is named."""

import functools

import pyarrow
import pyarrow.types as kinds

from ...record_errors import RecordError
from ...schema import scene_features


REMEDY = "Rows of the schema are written by `gap-mllm data convert`, or by datasets with features=scene_features()."


def check_columns(schema: pyarrow.Schema) -> None:
    """Refuse a file whose rows would lose or change something when they are read into the schema.

    The order of columns, and how Arrow stores texts, bytes and lists (large, as views, of fixed length or not,
    dictionaries), do not matter: lengths are checked with every row. A column that holds nothing but null may have
    the type null, as writers without a schema give it.

    Args:
        schema (`pyarrow.Schema`): schema of the file.
    Raises:
        RecordError: with every column that is missing, unknown or of another type; nested ones as "views.depth".
    """
    expected, found = _expected_columns(), dict(_columns(schema))
    nulls = tuple(f"{name}." for name, kind in found.items() if kind.endswith("null"))
    missing = [name for name in expected if name not in found and not name.startswith(nulls)]
    if missing:
        raise RecordError(f"the file has no column {', '.join(missing)}. {REMEDY}", missing[0])
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise RecordError(
            f"the file has the column {', '.join(unknown)}, which the schema does not; its values would be lost. Put "
            f"them into metadata, as JSON, or remove them. {REMEDY}",
            unknown[0],
        )
    other = [name for name, kind in found.items() if kind != expected[name] and not kind.endswith("null")]
    if other:
        told = ", ".join(f"column {name} holds {found[name]}, expected {expected[name]}" for name in other)
        raise RecordError(f"{told}. {REMEDY}", other[0])


@functools.cache
def _expected_columns() -> dict[str, str]:
    return dict(_columns(scene_features().arrow_schema))


def _columns(fields, prefix=""):
    """(name, what it holds) of all columns; a struct is opened, "views" of structs gives "views", "views.image", .."""
    for field in fields:
        name, kind, depth = prefix + field.name, field.type, 0
        while True:
            if isinstance(kind, pyarrow.BaseExtensionType):
                kind = kind.storage_type
            elif kinds.is_dictionary(kind):
                kind = kind.value_type
            elif _is_list(kind):
                kind, depth = kind.value_type, depth + 1
            else:
                break
        is_struct = kinds.is_struct(kind)
        yield name, "lists of " * depth + ("structs" if is_struct else _plain_name(kind))
        if is_struct:
            yield from _columns(kind, f"{name}.")


def _is_list(kind):
    tests = (
        kinds.is_list,
        kinds.is_large_list,
        kinds.is_fixed_size_list,
        kinds.is_list_view,
        kinds.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _plain_name(kind):
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return "string"
    if kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind):
        return "binary"
    return str(kind)
