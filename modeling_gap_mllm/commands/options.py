"""Fields of a dataclass as flags of a command line: `--frame-step 5` for `frame_step: int`."""

import argparse
import json
import types
import typing


_PREFIX = "option:"  # keeps fields apart from other arguments of the same name


def add_option_flags(parser: argparse.ArgumentParser, config_class: type, names) -> None:
    """Declare a flag for each of these fields; whole numbers, numbers, texts, lists "a,b" and counts "a=1,b=2".

    Args:
        parser (`argparse.ArgumentParser`)
        config_class (`type`): the dataclass.
        names (iterable of `str`): its fields that become flags.
    """
    kinds = typing.get_type_hints(config_class)
    group = parser.add_argument_group("options")
    for name in names:
        flag, kind = f"--{name.replace('_', '-')}", _kind(kinds[name])
        settings = {"dest": _PREFIX + name, "default": argparse.SUPPRESS}
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
        else:
            group.add_argument(flag, type=_READERS[kind], metavar=kind.__name__.upper(), **settings)


def given_options(args: argparse.Namespace) -> dict:
    """Return the fields that were given, by name."""
    return {name.removeprefix(_PREFIX): value for name, value in vars(args).items() if name.startswith(_PREFIX)}


def read_words(text: str) -> list[str]:
    """ "a,b" as a list."""
    return [word for word in text.split(",") if word]


def read_option(text: str) -> tuple[str, object]:
    """KEY=VALUE of `--option`; VALUE is JSON or text. Raises ValueError if it is neither."""
    key, found, value = text.partition("=")
    if not found or not key.isidentifier():
        raise ValueError(f"--option {text!r} is not KEY=VALUE.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _kind(hint):
    """The type that a flag's text becomes: of `str | tuple | None`, the last that is not None."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    kinds = [kind for kind in (typing.get_args(hint) if is_union else (hint,)) if kind is not types.NoneType]
    kind = typing.get_origin(kinds[-1]) or kinds[-1]
    return kind if kind in _READERS or kind is bool else str


def _tuple(text):
    return tuple(int(word) if word.lstrip("-").isdigit() else word for word in read_words(text))


def _counts(text):
    counts = {}
    for word in read_words(text):
        name, _, count = word.partition("=")
        if not name or not count.isdecimal() or name in counts:
            raise argparse.ArgumentTypeError(f"{text!r} has {word!r}; expected each name once, with a count: a=1,b=2")
        counts[name] = int(count)
    return counts


_READERS = {str: str, int: int, float: float, tuple: _tuple, dict: _counts}
