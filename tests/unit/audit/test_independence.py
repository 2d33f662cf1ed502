"""The audit proves something only as long as it shares no rule with what it checks."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OURS = {"siyu", "services", "simulator", "deploy"}
SHARED = {"siyu", "siyu.events", "siyu.events.avro", "siyu.events.codec", "siyu.events.types"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where a name comes from"
            assert node.module is not None
            names.add(node.module)
            # `from package import module` imports the module too.
            names |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if file_of(f"{node.module}.{alias.name}") is not None
            }
    return {name for name in names if name.partition(".")[0] in OURS}


def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def reached_from(module: str) -> set[str]:
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        path = file_of(name)
        if path is not None and (name == "siyu.audit" or name.startswith("siyu.audit.")):
            todo += imported(path)
            if path.name == "__init__.py":
                todo += [f"{name}.{module.stem}" for module in path.parent.glob("*.py") if module.stem != "__init__"]
    return seen


def test_the_audit_imports_nothing_of_this_project_but_itself_the_codec_and_the_record_types():
    reached = reached_from("siyu.audit")
    foreign = {name for name in reached if name != "siyu.audit" and not name.startswith("siyu.audit.")}
    assert foreign <= SHARED
    assert "siyu.audit.figures" in reached


def test_what_it_shares_holds_no_rule_of_the_figures():
    for module in SHARED - {"siyu.events"}:
        path = file_of(module)
        assert path is not None
        assert imported(path) <= SHARED
