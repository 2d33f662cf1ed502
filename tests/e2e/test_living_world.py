"""A scenario that lives, through the whole system: friends of long ago, callbacks that never come."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from playing import demo, played, sections

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


async def test_a_living_world_that_loses_callbacks_comes_out_as_they_tell_it(tmp_path: Path) -> None:
    shipped = yaml.safe_load((files("simulator") / "scenarios" / "lossy.yaml").read_text(encoding="utf-8"))
    shipped["story"] |= {"duration_s": 20, "pace": 60_000}
    shipped["delivery"] |= {"lost_share": 0.05, "shuffle_seconds": 1}
    scenario = tmp_path / "short.yaml"
    scenario.write_text(yaml.safe_dump(shipped, allow_unicode=True), encoding="utf-8")
    what = demo(tmp_path, scenario=str(scenario), scale=0.2)
    report = await played(what)
    truth = json.loads((what.base_dir / "truth.json").read_text(encoding="utf-8"))
    assert len(truth["untold"]["callbacks"]) > 5
    assert any("opening" in pair for pair in truth["relationships"]), "friends of long ago have parted"
    assert all(found > 0 for found in sections(report, "truth").values())
