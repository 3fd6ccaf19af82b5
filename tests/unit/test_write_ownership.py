"""Only `monox_kit.durable` writes: every other module goes through it.

The source is read, not run. Two kinds of call are looked for in each module but `durable.py`:

- calls that open a file for writing or rename one: never allowed;
- calls that write to a path they are given (`np.save`, `save_file`, `mkdir`, `copyfile` ...):
  allowed inside a `with new_folder(...)` or `with new_file(...)` block, and in functions that the
  package uses from such places only, directly or as a callback.

Functions are told apart by name and module: a name means the function of its own module, or the one
that the module imports. Where classes share a method's name, `checkpoints.save` is taken for the
method of the class `Checkpoints`, and any other `x.save` for that of every class.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import monox_kit

PACKAGE = Path(monox_kit.__file__).parent
SHIELDS = {"new_folder", "new_file"}
FORBIDDEN = {
    "write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "truncate", "mkstemp",
    "NamedTemporaryFile", "TemporaryFile", "SpooledTemporaryFile", "extractall",
    "os.rename", "os.renames", "os.replace", "os.link", "os.symlink", "os.write", "os.pwrite",
    "os.ftruncate", "torch.save", "pickle.dump",
}  # fmt: skip
WRITERS = {
    "save", "savez", "savez_compressed", "savetxt", "tofile", "open_memmap", "memmap", "save_file",
    "save_model", "save_pretrained", "savefig", "write_table", "ParquetWriter", "to_csv",
    "to_parquet", "save_to_disk", "main_export", "quantize_dynamic", "quantize_static",
    "save_model_to_file", "onnx.export",
    "mkdir", "makedirs", "os.mkdir", "rmtree", "copyfile", "copyfileobj", "copytree", "copy2",
    "shutil.copy", "shutil.move",
}  # fmt: skip
OPENERS = {"open", "fdopen", "FileIO", "ZipFile", "TarFile", "GzipFile", "open_files"}
MODULES_WITH_OPEN = {"io", "os", "gzip", "bz2", "lzma", "codecs", "zstandard", "fsspec", "tarfile"}
# As a whole argument, so that a path such as "data" is none.
WRITE_MODE = re.compile(r"[rbtU]*[wax+][rwaxbt+U]*([:|](gz|bz2|xz)?)?")


@dataclass
class Use:
    """One place where a function's name stands."""

    module: str
    function: str | None  # around it, as `module:name` or `module:Class.name`
    shielded: bool
    receiver: str = ""  # `checkpoints` in `self._checkpoints.save`; none of a bare name
    passed_to: tuple[str, int | str] | None = None  # a callback: the callee, and which argument


@dataclass
class Source:
    """What the check knows of the package."""

    forbidden: list[str] = field(default_factory=list)
    writers: list[tuple[str, Use]] = field(default_factory=list)
    uses: dict[str, list[Use]] = field(default_factory=dict)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    imports: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)  # (of, name)

    def covered(self, use: Use, above: frozenset[str] = frozenset()) -> bool:
        """Whether what stands here runs under a shield only."""
        callback = use.passed_to
        if use.shielded or (callback is not None and self.callback_covered(use.module, *callback)):
            return True
        if use.function is None or use.function in above:
            return False
        module, _, qualified = use.function.partition(":")
        owner, _, name = qualified.rpartition(".")
        uses = [
            each
            for each in self.uses.get(name, [])
            if (
                not self.is_of_another_class(each, owner, name)
                if owner
                else self.may_mean(each, module, name)
            )
        ]
        return bool(uses) and all(self.covered(each, above | {use.function}) for each in uses)

    def callback_covered(self, module: str, callee: str, argument: int | str) -> bool:
        """Whether a function of the package runs the callback it is given under a shield only."""
        names = self.parameters.get(f"{self.home(module, callee)}:{callee}", [])
        if isinstance(argument, int):
            argument = names[argument] if argument < len(names) else ""
        inside = [
            use
            for use in self.uses.get(argument, [])
            if use.function == f"{self.home(module, callee)}:{callee}"
        ]
        return argument in names and bool(inside) and all(use.shielded for use in inside)

    def home(self, module: str, name: str) -> str | None:
        """The module whose function a name means in another one; None where that is not known."""
        if f"{module}:{name}" in self.parameters:
            return module
        of, original = self.imports.get(module, {}).get(name, ("", ""))
        files = (f"{of.replace('.', '/')}{end}" for end in (".py", "/__init__.py"))
        found = next((file for file in files if file in self.imports), None)
        return None if found is None else self.home(found, original)

    def may_mean(self, use: Use, module: str, name: str) -> bool:
        """Whether a name may be that of a module's function: not where it is known to be another's.

        Behind a dot it is one only if a module stands before the dot; else it is an attribute.
        """
        if not use.receiver:
            return self.home(use.module, name) in (None, module)
        of, original = self.imports.get(use.module, {}).get(use.receiver, ("", ""))
        return f"{of}.{original}".lstrip(".").replace(".", "/") == module.removesuffix(".py")

    def is_of_another_class(self, use: Use, owner: str, name: str) -> bool:
        """Whether the receiver is named after another class that defines this method."""
        return use.receiver in self.classes_with(name) - {owner.lower()}

    def classes_with(self, method: str) -> set[str]:
        """The classes of the package that define `method`, in lower case."""
        split = (key.rpartition(":")[2].rpartition(".") for key in self.parameters)
        return {owner.lower() for owner, _, name in split if owner and name == method}


class Reader(ast.NodeVisitor):
    """Collects writes and uses of names from one module."""

    def __init__(self, module: str, source: Source) -> None:
        self.module, self.source = module, source
        self.imports = source.imports.setdefault(module, {})
        self.classes: list[str] = []
        self.functions: list[str] = []
        self.num_shields = 0
        self.passed_to: tuple[str, int | str] | None = None

    def here(self, receiver: str = "") -> Use:
        function = self.functions[-1] if self.functions else None
        return Use(self.module, function, self.num_shields > 0, receiver, self.passed_to)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name in node.names:
            self.imports[name.asname or name.name] = node.module or "", name.name

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.classes.append(node.name)
        self.generic_visit(node)
        self.classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        name = f"{self.module}:{'.'.join([*self.classes[-1:], node.name])}"
        self.source.parameters[name] = [
            argument.arg
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            if argument.arg != "self"
        ]
        self.functions.append(name)
        self.generic_visit(node)
        self.functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        before = self.num_shields
        for item in node.items:
            self.visit(item)
            self.num_shields += is_shield(item.context_expr)
        for statement in node.body:
            self.visit(statement)
        self.num_shields = before

    visit_AsyncWith = visit_With

    def visit_Name(self, node: ast.Name) -> None:
        self.source.uses.setdefault(node.id, []).append(self.here())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.source.uses.setdefault(node.attr, []).append(self.here(receiver_of(node)))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        dotted = ast.unparse(node.func)
        last, last_two = dotted.rpartition(".")[2], ".".join(dotted.split(".")[-2:])
        place = f"{self.module}:{node.lineno}: {dotted}"
        if {last, last_two} & FORBIDDEN or (last in OPENERS and opens_for_writing(node)):
            self.source.forbidden.append(place)
        elif {last, last_two} & WRITERS and not is_read_only_map(node):
            self.source.writers.append((place, self.here(receiver_of(node.func))))
        self.visit(node.func)
        arguments = [*enumerate(node.args), *((each.arg, each.value) for each in node.keywords)]
        for key, argument in arguments:
            before = self.passed_to
            if isinstance(argument, ast.Lambda | ast.Name | ast.Attribute) and key is not None:
                self.passed_to = (last, key)
            self.visit(argument)
            self.passed_to = before

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            # Setting it makes onnxruntime write the optimized graph there.
            if isinstance(target, ast.Attribute) and target.attr == "optimized_model_filepath":
                place = f"{self.module}:{node.lineno}: {target.attr}"
                self.source.writers.append((place, self.here()))
        self.generic_visit(node)


def receiver_of(node: ast.expr) -> str:
    """The name before the last dot, such as `checkpoints` for `self._checkpoints.save`."""
    if not isinstance(node, ast.Attribute):
        return ""
    return ast.unparse(node.value).rpartition(".")[2].strip("_").lower()


def is_shield(node: ast.expr) -> bool:
    """Whether the expression is a call of `new_folder` or `new_file`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SHIELDS


def is_read_only_map(node: ast.Call) -> bool:
    """Whether a call maps a file into memory without the right to change it."""
    modes = [word.value for word in node.keywords if word.arg == "mode"]
    return any(isinstance(mode, ast.Constant) and mode.value in {"r", "c"} for mode in modes)


def opens_for_writing(node: ast.Call) -> bool:
    """Whether a call of one of `OPENERS` may open a file in another mode than reading."""
    owner, _, name = ast.unparse(node.func).rpartition(".")
    if any(word.arg is None for word in node.keywords):
        return True  # **options may hold any mode
    if (owner, name) == ("os", "open"):
        flags = {ast.unparse(flag) for flag in node.args[1:2]}
        return any(word in flag for flag in flags for word in ("WR", "CREAT", "TRUNC", "APPEND"))
    modes = [word.value for word in node.keywords if word.arg == "mode"] or node.args[1:2]
    if not modes and owner and owner not in MODULES_WITH_OPEN and name == "open":
        modes = node.args[:1]  # `path.open(mode)`, or `archive.open(member)`
        if modes and not isinstance(modes[0], ast.Constant):
            return "mode" in ast.unparse(modes[0]) or mentions_write_mode(modes[0])
    # A mode that cannot be read here must be written as a literal.
    return any(not isinstance(mode, ast.Constant) or mentions_write_mode(mode) for mode in modes)


def mentions_write_mode(node: ast.expr) -> bool:
    """Whether a literal somewhere in the expression is a mode for writing."""
    literals = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return any(isinstance(each, str) and WRITE_MODE.fullmatch(each) for each in literals)


def violations(modules: dict[str, str]) -> list[str]:
    """The calls that write past `durable`, as `module:line: call`."""
    source = Source()
    for module, text in modules.items():
        Reader(module, source).visit(ast.parse(text))
    unshielded = [
        place
        for place, use in source.writers
        # A method of our own is judged by what its body does.
        if use.receiver not in source.classes_with(place.rpartition(".")[2])
        and not source.covered(use)
    ]
    return source.forbidden + unshielded


def package_modules() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != PACKAGE / "durable.py":
            yield str(path.relative_to(PACKAGE.parent)), path.read_text(encoding="utf-8")


_PUT = "def put(folder):\n    np.save(folder, values)\n"
_SHIELDED = "with new_folder(p) as f:\n    put(f)\n"


@pytest.mark.parametrize(
    ("modules", "count"),
    [
        # Another module's function of the same name is used outside a shield, this one is not.
        ({"a.py": _PUT + _SHIELDED, "b.py": "def put(folder):\n    pass\nput(x)\n"}, 0),
        ({"a.py": _PUT + _SHIELDED, "b.py": "from a import put\nput(x)\n"}, 1),
        ({"a.py": _PUT, "b.py": "from a import put\n" + _SHIELDED}, 0),
        (
            {
                "p/a.py": _PUT,
                "p/__init__.py": "from p.a import put\n",
                "b.py": "from p import put\n" + _SHIELDED,
                "c.py": "def put(x):\n    pass\nput(x)\n",
            },
            0,
        ),
        ({"p/a.py": _PUT, "b.py": "from p import a\na.put(x)\n", "c.py": _SHIELDED}, 1),
        ({"a.py": _PUT + _SHIELDED, "b.py": "queue.put(x)\n"}, 0),
        # A name that is imported from elsewhere, and may be anything, counts.
        ({"a.py": _PUT + _SHIELDED, "b.py": "put(x)\n"}, 1),
    ],
)
def test_functions_of_one_name_are_told_apart_by_module(
    modules: dict[str, str], count: int
) -> None:
    assert len(violations(modules)) == count


def test_only_durable_writes() -> None:
    modules = dict(package_modules())
    assert "monox_kit/data.py" in modules
    found = violations(modules)
    assert not found, "written past monox_kit.durable:\n" + "\n".join(found)


def test_durable_itself_would_be_found() -> None:
    found = violations({"durable.py": (PACKAGE / "durable.py").read_text(encoding="utf-8")})
    called = {place.rpartition(" ")[2] for place in found}
    assert {"os.open", "os.fdopen", "os.replace", "os.rename"} <= called


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open(path, mode)",
        "open(path, **options)",
        "path.open('w')",
        "path.open(mode)",
        "path.open('r+')",
        "path.open('w' if new else 'r')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "gzip.open(path, 'wt')",
        "file_system.open(path, 'wb')",
        "zipfile.ZipFile(path, 'w')",
        "io.FileIO(path, 'x')",
        "os.fdopen(descriptor, 'wb')",
        "path.write_text('a')",
        "os.replace(a, b)",
        "archive.extractall(path)",
        "shutil.copytree(a, b)",
        "path.mkdir()",
        "np.memmap(path, mode='r+')",
        "np.save(path, values)",
        "model.save_pretrained(folder)",
        "torch.onnx.export(model, inputs, path)",
        "options.optimized_model_filepath = path",
        "with other(path) as folder:\n    np.save(folder, values)",
        "with new_folder(path) as folder:\n    pass\nnp.save(folder, values)",
        "with new_folder(path) as folder:\n    torch.save(values, folder)",
        # One of two uses is outside a shield.
        "def put(folder):\n    np.save(folder, values)\n"
        "def a():\n    with new_folder(p) as f:\n        put(f)\n"
        "def b():\n    put(p)\n",
        # The function that is given the callback runs it before the shield.
        "def put(folder):\n    np.save(folder, values)\n"
        "def build(run):\n    run()\n    with new_folder(p) as f:\n        run(f)\n"
        "build(lambda folder: put(folder))\n",
        # Another class's method of the same name is shielded, this one is not.
        "class Vocabulary:\n    def save(self, folder):\n        np.savez(folder, values)\n"
        "class Checkpoints:\n    def save(self, folder):\n"
        "        with new_folder(p) as f:\n            pass\n"
        "run = vocabulary.save\n",
        # Only itself calls it.
        "def put(folder):\n    np.save(folder, values)\n    put(folder)\n",
    ],
)
def test_writes_past_durable_are_found(code: str) -> None:
    assert len(violations({"module.py": code})) == 1


@pytest.mark.parametrize(
    "code",
    [
        "open(path)",
        "open(path, 'rb')",
        "path.open(encoding='utf-8')",
        "path.open('rb')",
        "gzip.open(path, 'rt')",
        "file_system.open(path, 'rb')",
        "zipfile.ZipFile(path)",
        "os.open(path, os.O_RDONLY | os.O_CLOEXEC)",
        "archive.open(member)",
        "LogitStore.open(store)",
        "np.memmap(path, dtype=np.uint8, mode='r')",
        "text.replace('a', 'b')",
        "copy.copy(value)",
        "with new_folder(path) as folder:\n    np.save(folder, values)",
        "with lock(), durable.new_file(path) as stream:\n    np.save(stream, values)",
        "with durable.new_folder(p) as folder:\n    if big:\n        model.save_pretrained(folder)",
        "def put(folder):\n    np.save(folder, values)\n"
        "def both(folder):\n    put(folder)\n"
        "def a():\n    with new_folder(p) as f:\n        both(f)\n",
        "def put(folder):\n    np.save(folder, values)\n"
        "def build(run):\n    with new_folder(p) as f:\n        run(f)\n"
        "build(lambda folder: put(folder))\n",
        "class Vocabulary:\n    def save(self, folder):\n        np.savez(folder, values)\n"
        "class Checkpoints:\n    def save(self):\n"
        "        with new_folder(p) as f:\n            self.vocabulary.save(f)\n"
        "self._checkpoints.save()\n",
    ],
)
def test_what_is_allowed_is_not_found(code: str) -> None:
    assert violations({"module.py": code}) == []
