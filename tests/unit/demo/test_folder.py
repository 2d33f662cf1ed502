"""A demo begins with an empty folder, and never empties anything that is not a demo's."""

import time

import pytest

from deploy.local.demo import CORPS, MARKER, Demo, fresh_folder, write_clock, write_corps
from deploy.local.errors import DataFolderInUse, StartFailed
from siyu.ops.clock import FileClock, wall_ms
from siyu.ops.corps import load_corps


def test_the_folder_of_an_earlier_demo_is_emptied(tmp_path):
    folder = tmp_path / "demo"
    with fresh_folder(folder):
        (folder / "old").touch()
    with fresh_folder(folder):
        assert [path.name for path in folder.iterdir()] == [MARKER]


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(StartFailed, match="--base-dir"), fresh_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()


def test_two_demos_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "demo"
    with fresh_folder(folder), pytest.raises(DataFolderInUse), fresh_folder(folder):
        pass


def test_the_corps_are_usable_and_the_same_for_a_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_corps(tmp_path / name, seed)
    assert tuple(load_corps(tmp_path / "a")) == CORPS
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() != (tmp_path / "c").read_text()
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_a_faster_clock_is_everybodys(tmp_path):
    played = Demo(base_dir=tmp_path, rate=24).config()
    assert played.clock_file is not None
    write_clock(played.clock_file, Demo(rate=24))
    before, wall = FileClock(played.clock_file).now_ms(), wall_ms()
    time.sleep(0.1)
    passed, took = FileClock(played.clock_file).now_ms() - before, wall_ms() - wall
    assert 24 * 90 <= passed <= 24 * (took + 50)
    assert played.env("journey")["SIYU_CLOCK_FILE"] == played.env("simulator")["SIYU_CLOCK_FILE"]


def test_a_demo_lives_in_another_time_only_if_it_has_to(tmp_path):
    assert Demo(base_dir=tmp_path).config().clock_file is None
    played = Demo(base_dir=tmp_path, data=tmp_path / "x.csv.gz").config()
    assert played.clock_file is not None
    assert played.env("journey")["SIYU_CLOCK_FILE"] == str(played.clock_file)
    assert played.env("simulator")["SIYU_SIM_DATA"] == str(tmp_path / "x.csv.gz")
