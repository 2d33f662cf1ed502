from siyu.events import schemas_dir
from siyu.limits import LimitRegistry, load_registry
from siyu.limits.document import document, page


def registry() -> LimitRegistry:
    return load_registry(schemas_dir() / "limits")


def test_the_page_is_what_the_data_says() -> None:
    assert page().read_text(encoding="utf-8") == document(registry()), "run python -m siyu.limits.document"


def test_every_limit_stands_on_the_page_once_in_a_table_and_once_with_its_source() -> None:
    text = document(registry())
    several = {name for name, versions in registry().limits.items() if len(versions) > 1}
    for name, versions in registry().limits.items():
        rows = 2 + (len(versions) if name in several else 0)
        assert text.count(f"`{name}`") == rows, name


def test_no_row_is_broken() -> None:
    for line in document(registry()).splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
