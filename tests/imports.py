"""What a file imports, read and not run."""

import ast
from collections.abc import Iterator
from pathlib import Path


def file_of(module: str) -> Path | None:
    """Return the file of a module below the working folder; of a package its __init__.py."""
    path = Path(*module.split("."))
    files = [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()]
    return files[0] if files else None


def names_in(source: str) -> Iterator[str]:
    """Yield every module that is imported, and what is taken from one as if it were a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
