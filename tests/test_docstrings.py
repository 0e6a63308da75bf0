"""What docstrings say of arguments: a noun phrase for each, and the default that the code has."""

import ast
import re

import pytest

from tests.test_structure import FILES, FOLDERS, ROOT


ARGUMENTS = re.compile(r"^Args:\n((?:    .*\n?|\n)*)", re.MULTILINE)
NO_NOUN = (  # "of the bootstrap" leaves open what of it
    *("of", "as", "in", "for", "from", "with", "without", "by", "at", "on", "to", "up", "between", "above", "below"),
    *("over", "is", "can", "must", "that", "this", "only", "also", "if", "not", "after", "before"),
)


def documented(folder):
    """Place, node and text of each argument that a docstring of a folder describes, its name and type included."""
    for file in FILES[folder]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found = ARGUMENTS.search(ast.get_docstring(node) or "")
                for text in re.findall(r"^    \S.*(?:\n     +.*)*", found[1] if found else "", re.MULTILINE):
                    yield f"{file.relative_to(ROOT)} {node.name}", node, " ".join(text.split())


def literal(text):
    """A number, text or flag that is written so; None for all else."""
    try:
        value = ast.literal_eval(text.strip("`"))
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, int | float | str) else None


def literal_defaults(node):
    """Arguments of a function, or fields of a class without `__init__`, whose default is a number, text or flag."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if made:
            return literal_defaults(made[0])
        parts = [part for part in node.body if isinstance(part, ast.AnnAssign) and part.value is not None]
        pairs = [(part.target.id, part.value) for part in parts]
    else:
        taken, given = [*node.args.posonlyargs, *node.args.args], node.args.defaults
        pairs = zip(taken[len(taken) - len(given) :], given, strict=True)
        pairs = [*pairs, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        pairs = [(argument.arg, value) for argument, value in pairs]
    values = {name: value and literal(ast.unparse(value)) for name, value in pairs}
    return {name: value for name, value in values.items() if value is not None}


def types_of(text):
    """Names and the brackets behind them, `name (type, defaults to 1)`, up to the text of an argument."""
    at = 0
    while found := re.compile(r"(?:, )?(\w+) \(").match(text, at):
        at, depth = found.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        yield found[1], text[found.end() : at - 1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_texts_of_arguments_are_noun_phrases(folder):
    begins = [(where, text, re.match(r".*?: (\w+)", text)) for where, _, text in documented(folder)]
    wrong = [f"{where}: {text}" for where, text, found in begins if found and found[1].lower() in NO_NOUN]
    assert not wrong, "say what it is: 'seed of the bootstrap', not 'of the bootstrap'"


@pytest.mark.parametrize("folder", FOLDERS)
def test_defaults_of_arguments_are_told_as_they_are(folder):
    wrong = []
    for where, node, text in documented(folder):
        defaults = literal_defaults(node)
        for name, kind in types_of(text):
            told = re.search(r"defaults to (.*)", kind)
            if name in defaults and told is None and "default" not in text and "optional" not in kind:
                wrong.append(f"{where}: {name} defaults to {defaults[name]!r}")
            elif name in defaults and told and literal(told[1]) not in (None, defaults[name]):
                wrong.append(f"{where}: {name} defaults to {defaults[name]!r}, not {told[1]}")
    assert not wrong, "(`int`, defaults to 2)"


def test_what_is_read_of_a_docstring():
    text = "side (`int`, defaults to 2), box (array of shape `(n, 9)`): what it is (or not)."
    assert list(types_of(text)) == [("side", "`int`, defaults to 2"), ("box", "array of shape `(n, 9)`")]
    node = ast.parse('def made(a, b=1.5, c="x", *, d=None, e=False, f=SIZE): ...').body[0]
    assert literal_defaults(node) == {"b": 1.5, "c": "x", "e": False}
    assert sum(1 for folder in FOLDERS for _ in documented(folder)) > 1000
