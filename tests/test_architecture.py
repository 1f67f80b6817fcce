"""The rules that keep the service small enough to understand in ten minutes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from core.logs import FIELDS
from main import ROUTERS

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("storage", "core", "routers")
SOURCES = [ROOT / "main.py", *(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))]
TESTS = list((ROOT / "tests").rglob("*.py"))
FRAMEWORK = {"fastapi", "starlette"}
FORBIDDEN = {
    "storage": {"core", "routers", "main"} | FRAMEWORK,
    "core": {"routers", "main"} | FRAMEWORK,
    "routers": {"main"},
}
# Nothing of a provider's may be loaded before somebody needs it.
SDKS = (
    "openai",
    "anthropic",
    "supabase",
    "postgrest",
    "sentry_sdk",
    "mcp",
    "onnx",
    "onnxruntime",
    "tokenizers",
    "faiss.contrib",
)

by_name = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_by(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def functions_of(path):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_only_what_is_below_it(layer):
    wrong = {
        path.name: bad
        for path in (ROOT / layer).rglob("*.py")
        if (bad := {name.split(".")[0] for name in imported_by(path)} & FORBIDDEN[layer])
    }
    assert wrong == {}


def test_only_deps_knows_depends():
    for path in (ROOT / "routers").glob("*.py"):
        assert path.name == "deps.py" or "Depends" not in path.read_text(), path


@by_name
def test_a_module_has_at_most_300_lines(path):
    assert sum(1 for line in path.read_text().splitlines() if line.strip()) <= 300


@by_name
def test_a_function_has_at_most_40_lines(path):
    for node in functions_of(path):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body:
            assert body[-1].end_lineno - body[0].lineno + 1 <= 40, node.name


@by_name
def test_a_module_says_what_it_is(path):
    assert path.name == "__init__.py" or ast.get_docstring(tree_of(path))


def test_only_the_settings_read_the_environment():
    readers = {
        path.name
        for path in SOURCES
        if any(word in path.read_text() for word in ("os.environ", "getenv", "environb"))
    }
    assert readers <= {"config.py"}


def test_sql_lives_in_storage():
    statements = ("SELECT ", "INSERT INTO", "UPDATE memory_layer", "DELETE FROM")
    for path in SOURCES:
        if path.parent.name != "storage":
            assert not any(word in path.read_text() for word in statements), path


def texts_of(path):
    """Every text of a module; an f-string as a whole and not its pieces."""
    tree = tree_of(path)
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    pieces = {id(piece) for node in joined for piece in ast.walk(node)}
    plain = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in pieces]
    return [ast.unparse(node) for node in (*joined, *plain)]


def test_every_statement_on_a_persons_rows_names_the_user():
    # The embedding queue serves all users, under a role of its own.
    for path in (ROOT / "storage").glob("*.py"):
        for text in texts_of(path):
            if "memory_layer.memories" in text or "memory_layer.chunks" in text:
                assert path.name == "embedding_queue.py" or "user_id" in text, text[:200]


def test_no_base_http_middleware_and_no_plain_routes():
    for path in SOURCES:
        text = path.read_text()
        assert "BaseHTTPMiddleware" not in text, path
        assert '.middleware("http")' not in text, path
    for module in ROUTERS:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for call in (route.endpoint, *(d.call for d in route.dependant.dependencies)):
                code = call.__code__
                assert code.co_flags & 0x80, f"{call.__name__} is not async"


def test_every_log_line_is_a_constant_and_known_fields():
    for path in SOURCES:
        for call in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
            if re.fullmatch(
                r"(self\._)?log\.(debug|info|warning|error|critical)", ast.unparse(call.func)
            ):
                assert isinstance(call.args[0], ast.Constant) or path.name == "faults.py", path
                named = {keyword.arg for keyword in call.keywords if keyword.arg}
                assert named <= FIELDS, (path, named - FIELDS)


def test_at_most_two_places_catch_everything():
    broad = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
    ]
    assert len(broad) <= 2, broad


def test_every_finding_that_is_ignored_has_its_reason_beside_it():
    for path in SOURCES:
        for ignored in re.findall(r"# nosec.*", path.read_text()):
            assert re.fullmatch(r"# nosec B\d{3} # \w.{5,}", ignored), (path, ignored)


def test_nothing_is_mocked():
    for path in TESTS:
        if path != Path(__file__):
            text = path.read_text()
            assert "unittest.mock" not in text, path
            assert "MagicMock" not in text, path


def test_no_sdk_is_loaded_at_start():
    code = f"import sys, main; print([m for m in {SDKS!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_importing_main_reads_no_setting_and_opens_nothing():
    code = "import main; print(main.app.title)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PORT": "not a port"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "Memory Layer"


def test_vague_names_are_not_used_for_modules():
    vague = {"utils", "helpers", "common", "services", "repositories", "misc"}
    assert [path for path in SOURCES if path.stem in vague or path.parent.name in vague] == []
