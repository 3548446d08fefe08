"""Loading a team's own code by path ("churn_model.py:build"). What is done with it belongs to the caller.

A team's module never gets onto `sys.path`, where its name could hide one of ours or of a library. It is
registered in `sys.modules` under a name made of its path and its content, so its classes can be pickled, an
edited file is loaded anew, and two files of one name don't meet. A process that unpickles such an object has to
load the same file first.

What is stored names the team's types by the file's own name, `churn_model.ratio`, whatever the file says today: the
file travels beside it. `stored_names` and `importable` go from the one name to the other.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from perennial.errors import DefinitionError

_LOCK = threading.RLock()
_PREFIX = "perennial_plugin_"


class _Source(importlib.machinery.SourceFileLoader):
    """Runs the very bytes that were digested; no cached bytecode, which an edit within a second would outlive."""

    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    @property
    def content(self) -> bytes:
        return self._content

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002 (importlib's signature)
        return self.source_to_code(self._content, self.path)


def load_attribute(spec: str, folder: Path) -> Callable[..., Any]:
    """The callable that `spec` ("file.py:name") names; a relative file starts at `folder`.

    Raises:
        DefinitionError: The file is missing or fails at import, or the name is missing or not callable.
    """
    value = find_attribute(spec, folder)
    if value is None:
        path, name = split_spec(spec, folder)
        near = sorted(key for key, item in vars(load_module(path)).items() if callable(item) and key[0] != "_")
        found = f"it has {', '.join(near)}" if near else "it defines no function or class"
        raise DefinitionError(f"{path}: has no {name!r}, which {spec!r} asks for; {found}", f"Define {name} there")
    if not callable(value):
        path, name = split_spec(spec, folder)
        raise DefinitionError(
            f"{path}: {name} is {type(value).__name__} {_short(value)}, which can't be called",
            f"Make {name} a function",
        )
    return value  # type: ignore[no-any-return]


def find_attribute(spec: str, folder: Path) -> Any | None:
    """What `spec` names, or None where the file has no such name; other errors as in `load_attribute`."""
    path, name = split_spec(spec, folder)
    return getattr(load_module(path), name, None)


def split_spec(spec: str, folder: Path) -> tuple[Path, str]:
    """The absolute path and the name that "file.py:name" means.

    Raises:
        DefinitionError: It has another form.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise DefinitionError(f"{spec!r} names no attribute of a file", 'Write "file.py:name"')
    return (folder / Path(file).expanduser()).resolve(), name


def content_digest(path: Path) -> str:
    """16 hex digits of the file's SHA-256.

    Raises:
        DefinitionError: The file can't be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()[:16]


def load_module(path: Path) -> ModuleType:
    """The file as a module, run once per content.

    Raises:
        DefinitionError: The file can't be read, or raises; its line is named.
    """
    content = _read(path)
    return _run(path, content, hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:16])


def load_stored(path: Path) -> ModuleType:
    """A file that travelled with a version, run once per content, wherever it lies now.

    Raises:
        DefinitionError: As `load_module`.
    """
    content = _read(path)
    return _run(path, content, hashlib.sha256(content).hexdigest()[:16])


def _run(path: Path, content: bytes, digest: str) -> ModuleType:
    name = f"{_PREFIX}{path.stem}_{digest}"
    with _LOCK:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path), content))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the team's code may raise anything
            del sys.modules[name]
            raise DefinitionError(
                f"{path}: line {line_of(error, path)}: fails at import: {type(error).__name__}: {error}",
                "Mend it there; a file of yours can't import its neighbours, only installed packages",
            ) from error
        except BaseException:
            del sys.modules[name]
            raise
        return module


def loaded_modules() -> list[ModuleType]:
    """The teams' files that this process has loaded so far."""
    return [module for name, module in list(sys.modules.items()) if name.startswith(_PREFIX)]


def own_module(type_name: str) -> ModuleType | None:
    """The team's module that a type's full name (`perennial_plugin_….ratio`) is of; None for any other type."""
    module, _, _ = type_name.rpartition(".")
    return sys.modules.get(module) if module.startswith(_PREFIX) else None


def stored_name(module: ModuleType) -> str:
    """What a team's module is called in what is stored: its file's name without the ending."""
    return Path(str(module.__file__)).stem


def source_of(module: ModuleType) -> bytes:
    """The very bytes that a team's module was run from."""
    loader = module.__loader__
    assert isinstance(loader, _Source)
    return loader.content


@contextmanager
def importable(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Within it, the modules are found under their files' names, as what is stored names them.

    Raises:
        DefinitionError: A library has that name.
    """
    with _LOCK:
        named = {stored_name(module): module for module in modules}
        for name, module in named.items():
            _require_free(name, module)
        sys.modules.update(named)
        try:
            yield
        finally:
            for name in named:
                del sys.modules[name]


@contextmanager
def stored_names(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Within it, the modules' functions and classes also say that they are of the file's name: for storing them.

    Raises:
        DefinitionError: As `importable`.
    """
    modules = list(modules)
    with importable(modules):
        own = [
            (value, module.__name__, stored_name(module))
            for module in modules
            for value in vars(module).values()
            if isinstance(value, type | FunctionType) and value.__module__ == module.__name__
        ]
        try:
            for value, _, name in own:
                value.__module__ = name
            yield
        finally:
            for value, name, _ in own:
                value.__module__ = name


def _require_free(name: str, module: ModuleType) -> None:
    """Refuse a file's name that an installed package or another module has: one would be taken for the other."""
    taken = name in sys.modules or name in sys.stdlib_module_names
    if not taken and (spec := importlib.util.find_spec(name)) is not None:
        # The very file, found because its folder is the working directory, is no other.
        taken = spec.origin is None or Path(spec.origin).read_bytes() != source_of(module)
    if taken:
        raise DefinitionError(
            f"{module.__file__}: its name is that of the module {name}, which what is stored would be taken for",
            f"Rename the file, such as own_{name}.py, and the definition's training.estimator with it",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        near = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        found = f"; in that folder: {', '.join(near)}" if near else ""
        raise DefinitionError(
            f"{path}: can't be read: {error.strerror}{found}",
            "Correct the path, which starts at the definition's folder",
        ) from error


def line_of(error: BaseException, path: Path) -> int | str:
    """The line of the file at which an error was raised, the innermost; `?` where it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or "?" if lines else "?"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
