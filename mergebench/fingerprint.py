"""A fingerprint of the code behind a stage, so that a change of code makes its outputs stale.

Snakemake sees neither imported modules nor the order of ``params``. Each rule therefore carries a digest of
the syntax trees of its stage's module and of all modules of this package that it imports, directly or not.
Comments, docstrings, layout and modification times do not count. The plumbing that moves files but cannot
change a number (`INFRASTRUCTURE`) does not count either.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT.name
INFRASTRUCTURE = {f"{PACKAGE}.{name}" for name in ("artifacts", "errors", "cli", "fingerprint", "warm")}


class _WithoutDocstrings(ast.NodeTransformer):
    def _strip(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = node.body  # type: ignore[attr-defined]
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
        return node

    visit_Module = visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _strip


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(tree: ast.AST, module: str) -> list[str]:
    package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parts, *([node.module] if node.module else [])])
            found += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == PACKAGE]


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    return ast.dump(_WithoutDocstrings().visit(tree)), tuple(_imports(tree, module))


def closure(module: str) -> list[str]:
    """The module and everything of this package that it imports, statically, sorted by name."""
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name in seen or name in INFRASTRUCTURE or not _path(name).is_file():
            continue
        seen.add(name)
        queue += _parsed(name)[1]
    return sorted(seen)


@cache
def fingerprint(*modules: str, files: tuple[str, ...] = ()) -> str:
    """Sixteen hex digits for the code of `modules` and the content of `files` (relative to the package)."""
    digest = hashlib.sha256()
    for name in sorted({n for module in modules for n in closure(module)}):
        digest.update(f"{name}\0{_parsed(name)[0]}\0".encode())
    for file in sorted(files):
        digest.update(f"{file}\0".encode() + (ROOT / file).read_bytes() + b"\0")
    return digest.hexdigest()[:16]
