"""The Logs screen by keys: over streams of simulated resources, and over files."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import random
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.support.fakes import profile
from tests.support.logs import CONTAINERS, DB, WEB, files_of, stamped
from tests.support.panel import panel_of, shown, until, workspace_of
from vmtui.backends.fake.options import FakeOptions
from vmtui.core.lifecycle import Action
from vmtui.core.resource import Ref
from vmtui.engine.workspace import Workspace
from vmtui.host.inotify import Watch
from vmtui.host.paths import Paths
from vmtui.tui.app import Panel
from vmtui.tui.screens.logs import LogsScreen


@contextlib.asynccontextmanager
async def logs_of(
    workspace: Workspace, *refs: Ref, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Panel, Pilot[None], LogsScreen]]:
    async with panel_of(workspace, size=size) as (app, pilot):
        app.open_logs(refs)
        await until(pilot, lambda: isinstance(app.screen, LogsScreen))
        screen = app.screen
        assert isinstance(screen, LogsScreen)
        await until(pilot, lambda: bool(screen.view.merge.logs))
        yield app, pilot, screen


def texts(screen: LogsScreen) -> list[str]:
    return [line.strip.text.strip() for line in screen.view.lines()]


def any_text(screen: LogsScreen) -> bool:
    return bool(texts(screen))


async def settled(pilot: Pilot[None], screen: LogsScreen) -> None:
    """Everything is counted."""
    await until(pilot, lambda: all(tally.complete for tally in screen._tallies()))
    await pilot.pause(0.15)


async def typed(pilot: Pilot[None], text: str) -> None:
    for char in text:
        await pilot.press(
            {"!": "exclamation_mark", ":": "colon", " ": "space", "/": "slash", "_": "underscore"}.get(char, char)
        )


# Streams


async def test_a_stream_is_shown_and_followed(paths: Paths) -> None:
    workspace = await workspace_of(
        paths, CONTAINERS, options={"container/web": FakeOptions(log=("one", "two"), ready_line="three")}
    )
    try:
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: texts(screen) == ["one", "two", "three"])
            assert "dev/container/web running" in shown(app)
            await until(pilot, lambda: "following" in shown(app))
            assert "at most the last 10,000 lines" in shown(app)
            await workspace.act(WEB, Action.STOP, emit=lambda _: None)
            await workspace.act(WEB, Action.START, emit=lambda _: None)
            await until(pilot, lambda: len(texts(screen)) > 3)
    finally:
        await workspace.aclose()


async def test_hidden_and_shown_again_no_line_comes_twice(paths: Paths) -> None:
    workspace = await workspace_of(paths, CONTAINERS, options={"container/web": FakeOptions(log=("one", "two"))})
    try:
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: "one" in texts(screen))
            await pilot.press("1")
            await until(pilot, lambda: app.screen is not screen)
            await until(pilot, lambda: not [worker for worker in app.workers if worker.group.startswith("log-")])
            await pilot.press("2")
            await until(pilot, lambda: app.screen is screen)
            await pilot.pause(1.5)
            assert texts(screen).count("one") == 1
    finally:
        await workspace.aclose()


async def test_a_stream_of_what_is_made_anew(paths: Paths) -> None:
    options = {"container/web": FakeOptions(log=("one",))}
    workspace = await workspace_of(paths, CONTAINERS, options=options)
    try:
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: texts(screen) == ["one"])
            await workspace.act(WEB, Action.DELETE, emit=lambda _: None, purge=True)
            await until(pilot, lambda: WEB not in app.feed.model.items)
            await pilot.pause(1.0)
            assert texts(screen) == ["one"]
            wanted = profile("dev", CONTAINERS, {"container/web": FakeOptions(log=("two",))})
            await workspace.apply(await workspace.plan(wanted), emit=lambda _: None)
            await until(pilot, lambda: texts(screen) == ["one", "two"])
    finally:
        await workspace.aclose()


async def test_where_nothing_can_be_watched(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Watch, directory: Path, *, writes: bool = False) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    async with files_of(paths) as (workspace, files):
        files[WEB].write_text(stamped("one", 1))
        async with logs_of(workspace, WEB) as (_, pilot, screen):
            await until(pilot, lambda: texts(screen) == ["one"])
            screen.hidden()
            monkeypatch.setattr(Watch, "add", full)
            screen.shown()
            with files[WEB].open("a") as file:
                file.write(stamped("two", 2))
            await until(pilot, lambda: texts(screen) == ["one", "two"])
            monkeypatch.undo()


async def test_hostile_lines(paths: Paths) -> None:
    hostile = (
        "[@click=app.quit]x[/] [/",
        "\x1b]52;c;AAAA\x07\x1b[2J\x1b[31mred\x1b[0m\x9b1m",
        "\u202eback\ud800\x00\x07\x08",
        "\x1b]0;not the end",
        "tab\there\r",
        "x" * 100_000,
        "日本語 e\u0301 👩\u200d💻",
    )
    workspace = await workspace_of(paths, CONTAINERS, options={"container/web": FakeOptions(log=hostile[:1])})
    try:
        async with logs_of(workspace, WEB, size=(40, 10)) as (app, pilot, screen):
            from vmtui.core.backend import LogLine
            from vmtui.tui.logs.stream import StreamLog

            (log,) = screen.view.merge.logs
            assert isinstance(log, StreamLog)
            log.feed(LogLine(text=text, at=1e300 if "tab" in text else 1.0) for text in hostile)
            for key in ("w", "t", "g", "t", "slash", "x", "enter", "n", "G", "w", "right", "right"):
                await pilot.press(key)
                screen.view.redraw()
                await pilot.pause()
                picture = shown(app)
                assert not set(picture) & {"\x1b", "\x9b", "\u202e", "\ud800", "\x07", "\t", "\r", "\0", "\u200d"}
            assert app.is_running
    finally:
        await workspace.aclose()


# Why it is empty


async def test_empty_says_why(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files), logs_of(workspace, WEB) as (app, pilot, screen):
        await until(pilot, lambda: "it has written nothing yet" in shown(app))
        assert "esc goes back" in shown(app)
        files[WEB].write_text(stamped("at last"))
        await until(pilot, lambda: texts(screen) == ["at last"])
        await workspace.act(WEB, Action.STOP, emit=lambda _: None)
        await until(pilot, lambda: "ended" in shown(app))


async def test_nobody_says_so(paths: Paths) -> None:
    async with files_of(paths) as (workspace, _), panel_of(workspace) as (app, pilot):
        app.open_logs([Ref.parse("dev/container/gone")])
        await until(pilot, lambda: "there is no dev/container/gone" in shown(app))
        await pilot.press("s", "n", "ampersand", "number_sign", "w", "G", "g", "ctrl+f", "right", "slash", "x", "enter")
        await until(pilot, lambda: any("nothing to save" in notice.text for notice in app.notices))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.home)


# Files


async def test_moving(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text("".join(stamped(f"line {number}", number) for number in range(1, 1001)))
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: texts(screen)[-1:] == ["line 1000"])
            height = screen.view.size.height
            assert texts(screen) == [f"line {number}" for number in range(1001 - height, 1001)]
            await settled(pilot, screen)
            await until(pilot, lambda: "line 1,000 of 1,000" in shown(app))
            await pilot.press("k")
            await until(pilot, lambda: texts(screen)[-1] == "line 999")
            await until(pilot, lambda: "paused" in shown(app))
            await pilot.press("j")
            await pilot.pause()
            await until(pilot, lambda: "following" in shown(app))
            await pilot.press("ctrl+b")
            await until(pilot, lambda: texts(screen)[-1] == f"line {1000 - (height - 1)}")
            await pilot.press("g")
            await until(pilot, lambda: texts(screen)[0] == "line 1")
            await pilot.press("ctrl+f")
            await until(pilot, lambda: texts(screen)[0] == f"line {height}")
            await pilot.press("ctrl+d", "ctrl+u", "number_sign")
            await pilot.pause()
            await typed(pilot, "500")
            await pilot.press("enter")
            await until(pilot, lambda: texts(screen)[:1] == ["line 500"])
            await pilot.press("G")
            await until(pilot, lambda: texts(screen)[-1] == "line 1000")
            await pilot.press("f")
            await pilot.pause()
            await until(pilot, lambda: "paused" in shown(app))
            with files[WEB].open("a") as file:
                file.write(stamped("more", 1001))
            await settled(pilot, screen)
            await until(pilot, lambda: texts(screen)[-1] == "line 1000")
            await pilot.press("f")
            await until(pilot, lambda: texts(screen)[-1:] == ["more"])


async def test_it_is_followed_over_a_rotation(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        log = files[WEB]
        log.write_text(stamped("one", 1))
        async with logs_of(workspace, WEB) as (_, pilot, screen):
            await until(pilot, lambda: texts(screen) == ["one"])
            log.rename(log.with_name("log.1"))
            log.write_text(stamped("two", 2))
            await until(pilot, lambda: texts(screen) == ["one", "two"])
            log.write_text(stamped("3", 3))  # cut, and written anew
            await until(pilot, lambda: texts(screen)[-1:] == ["3"])


async def test_it_is_made_anew_while_it_is_looked_at(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text(stamped("one", 1))
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: texts(screen) == ["one"])
            await workspace.act(WEB, Action.DELETE, emit=lambda _: None, purge=True)
            shutil.rmtree(files[WEB].parent, ignore_errors=True)
            await until(pilot, lambda: WEB not in app.feed.model.items)
            assert texts(screen) == ["one"]  # what was written can still be read
            wanted = profile("dev", CONTAINERS, {})
            await workspace.apply(await workspace.plan(wanted), emit=lambda _: None)
            await until(pilot, lambda: WEB in app.feed.model.items)
            files[WEB].parent.mkdir(parents=True, exist_ok=True)
            files[WEB].write_text(stamped("two", 2))
            await until(pilot, lambda: texts(screen) == ["two"])
            with files[WEB].open("a") as file:
                file.write(stamped("three", 3))
            await until(pilot, lambda: texts(screen) == ["two", "three"])


async def test_streams_times_levels_and_wrapping(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text(
            stamped("INFO begins", 1)
            + stamped("ERROR " + "long " * 30, 2, "stderr")
            + stamped("WARN it", 3)
            + stamped("debug it", 4)
            + stamped("no level", 5)
            + stamped("begun", 6, tag="P")
        )
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: len(texts(screen)) == 6)
            palette = app.palette
            styles = [line.strip._segments[-1 if n < 5 else -2].style for n, line in enumerate(screen.view.lines())]
            assert styles == [palette.text, palette.bad, palette.warn, palette.dim, palette.text, palette.text]
            assert texts(screen)[1].startswith("2>ERROR")
            assert texts(screen)[5] == f"begun{palette.glyphs.more}"
            await pilot.press("right")
            assert "INFO" not in shown(app)
            await pilot.press("left", "w")
            assert len(texts(screen)) > 6
            assert "wrapped" in shown(app)
            await pilot.press("w", "t")
            local = datetime.fromtimestamp(1, UTC).astimezone().strftime("%H:%M:%S.000")
            assert texts(screen)[0].startswith(local)
            await pilot.press("t")
            assert texts(screen)[0].startswith("1970-01-01" if local >= "00:00:01" else "1969")


async def test_search(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text(
            "".join(
                stamped("ERROR at it" if number % 100 == 50 else f"line {number}", number) for number in range(1000)
            )
        )
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: bool(texts(screen)))
            await pilot.press("n")
            await pilot.pause()
            assert any("search first" in notice.text for notice in app.notices)
            await pilot.press("slash")
            await typed(pilot, "error")
            await pilot.press("enter")
            await settled(pilot, screen)
            await until(pilot, lambda: "/error  10 of 10" in shown(app))
            assert "ERROR at it" in shown(app)
            spans = [
                segment
                for line in screen.view.lines()
                for segment in line.strip
                if segment.style and segment.style.bgcolor
            ]
            assert [segment.text for segment in spans] == ["ERROR"]
            await pilot.press("N")
            await until(pilot, lambda: "/error  9 of 10" in shown(app))
            await pilot.press("n", "n")
            await until(pilot, lambda: any("no more matches" in notice.text for notice in app.notices))
            await pilot.press("g", "n")
            await until(pilot, lambda: "/error  1 of 10" in shown(app))
            await pilot.press("ampersand")
            await until(pilot, lambda: texts(screen) == ["ERROR at it"] * 10)
            assert "matches only" in shown(app)
            await pilot.press("G")
            with files[WEB].open("a") as file:
                file.write(stamped("an error more", 2000) + stamped("not this", 2001))
            await until(pilot, lambda: texts(screen)[-1:] == ["an error more"])
            await pilot.press("escape")
            await until(pilot, lambda: texts(screen)[-1:] == ["not this"])
            assert screen.search is None


async def test_a_search_that_is_left_goes_back_to_where_it_began(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text("".join(stamped(f"line {number}", number) for number in range(1, 1001)))
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: texts(screen)[-1:] == ["line 1000"])
            await pilot.press("slash")
            await typed(pilot, "e.7$")
            await until(pilot, lambda: "line 7" in texts(screen))
            await pilot.press("escape")
            await until(pilot, lambda: texts(screen)[-1:] == ["line 1000"])
            await pilot.press("slash")
            await typed(pilot, "(")
            await until(pilot, lambda: "not a regular expression" in shown(app))
            await pilot.press("escape")
            await pilot.pause()
            assert screen.search is None


async def test_several_logs(paths: Paths, tmp_path: Path) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text("".join(stamped(f"web {number}", number) for number in range(0, 10, 2)))
        files[DB].write_text("".join(stamped(f"db {number}", number) for number in range(1, 10, 2)))
        async with logs_of(workspace, WEB, DB, size=(100, 24)) as (app, pilot, screen):
            await until(pilot, lambda: len(texts(screen)) == 10)
            assert [text.split()[-1] for text in texts(screen)] == [str(number) for number in range(10)]
            assert "container/web" in texts(screen)[0]
            assert "container/db" in texts(screen)[1]
            names = [line.strip._segments[1].style for line in screen.view.lines()[:2]]
            assert names[0] != names[1]
            await pilot.press("slash")
            await typed(pilot, "name:db 5")
            await pilot.press("enter")
            await until(pilot, lambda: "1 of 1" in shown(app))
            await pilot.press("escape", "s")
            await pilot.pause()
            target = tmp_path / "both.log"
            await replace_input(pilot, str(target))
            await until(pilot, target.exists)
            await pilot.pause()
            assert target.read_text().splitlines()[1] == f"container/db\t{stamped('db 1', 1).rstrip()}"
            await pilot.press("m")
            await pilot.pause()
            await replace_input(pilot, "name:db")
            await until(pilot, lambda: len(texts(screen)) == 5)
            assert screen.refs == (DB,)


async def replace_input(pilot: Pilot[None], text: str) -> None:
    from textual.widgets import Input

    await until(pilot, lambda: bool(pilot.app.screen.query(Input)))
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()
    await pilot.press("enter")


async def test_saving(paths: Paths, tmp_path: Path) -> None:
    async with files_of(paths) as (workspace, files):
        data = b"junk \xff\x1b[31m\r\n" + stamped("hello").encode() + b"no end"
        files[WEB].write_bytes(data)
        files[WEB].with_name("log.1").write_bytes(stamped("older").encode())
        async with logs_of(workspace, WEB) as (app, pilot, screen):
            await until(pilot, lambda: len(texts(screen)) == 4)
            target = tmp_path / "saved.log"
            await pilot.press("s")
            await until(pilot, lambda: "all bytes as they were written" in shown(app))
            await replace_input(pilot, str(target))
            await until(pilot, lambda: any("saved" in notice.text for notice in app.notices))
            assert target.read_bytes() == stamped("older").encode() + data
            assert oct(target.stat().st_mode & 0o777) == "0o600"
            target.write_text("mine")
            await pilot.press("s")
            await replace_input(pilot, str(target))
            await until(pilot, lambda: "there is such a file" in shown(app))
            await pilot.press("enter")  # the focus is on Cancel
            await pilot.pause()
            assert target.read_text() == "mine"
            await pilot.press("slash")
            await typed(pilot, "hello")
            await pilot.press("enter", "ampersand")
            await settled(pilot, screen)
            await pilot.press("s")
            await until(pilot, lambda: "match /hello" in shown(app))
            await replace_input(pilot, str(target))
            await until(pilot, lambda: "there is such a file" in shown(app))
            await pilot.press("y")
            await until(pilot, lambda: target.read_bytes() == stamped("hello").encode())
            assert os.listdir(tmp_path) == ["saved.log"]
            await pilot.press("s")
            await replace_input(pilot, str(tmp_path / "no" / "such"))
            await until(pilot, lambda: "there is no directory" in shown(app))


async def test_moving_shows_every_line_once(paths: Paths) -> None:
    chance = random.Random(7)
    texts_of = ("日本語 " * 20, "x" * 500, "", "short", "\t tab", "é" * 90)
    async with files_of(paths) as (workspace, files):
        for number, file in enumerate(files.values()):
            file.write_text("".join(stamped(chance.choice(texts_of), 2 * at + number) for at in range(60)))
        async with logs_of(workspace, WEB, DB, size=(60, 20)) as (_, pilot, screen):
            await until(pilot, functools.partial(any_text, screen))
            view = screen.view
            for wrap in (False, True):
                view.set_wrap(wrap)
                every = [
                    (row.id, number)
                    for row in view.merge.forwards(view.merge.start())
                    for number in range(len(view._strips(row)))
                ]
                view.to_start()
                at, height = 0, view.size.height
                for _ in range(150):
                    by = chance.choice((-200, -30, -5, -1, 1, 2, 7, 40))
                    view.move(by)
                    at = max(0, min(at + by, len(every) - height))
                    assert [(line.row.id, line.number) for line in view.lines()] == every[at : at + height]


async def test_small_and_large(paths: Paths) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].write_text("".join(stamped(f"line {number} {'x' * 60}", number) for number in range(100)))
        for size in ((40, 10), (20, 5), (200, 60)):
            async with logs_of(workspace, WEB, size=size) as (app, pilot, screen):
                await until(pilot, functools.partial(any_text, screen))
                await pilot.press("w", "g", "G", "k", "slash", "x", "enter", "n", "N", "t", "t")
                await pilot.resize_terminal(size[0] + 7, size[1] + 3)
                await pilot.pause(0.1)
                assert app.is_running


# One gigabyte


SIZE = 1 << 30


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines at both ends; between them a hole, which is one line of zero bytes, and costs no disk."""
    path = tmp_path_factory.mktemp("big") / "log"
    block = "".join(stamped(f"line {number}", number) for number in range(1000)).encode()
    with path.open("wb") as file:
        file.write(block)
        file.seek(SIZE - len(block) - 1)
        file.write(b"\n" + block)
    return path


async def test_a_gigabyte_opens_at_once_from_both_ends(paths: Paths, gigabyte: Path) -> None:
    async with files_of(paths) as (workspace, files):
        files[WEB].symlink_to(gigabyte)
        async with logs_of(workspace, WEB) as (_, pilot, screen):
            await until(pilot, lambda: texts(screen)[-1:] == ["line 999"])
            assert screen._sources is not None
            log = screen._sources.files(WEB)
            assert log is not None
            screen.hidden()  # no counting in the background
            await asyncio.sleep(0.1)
            before = log.bytes_read
            screen.view.redraw()
            log._lines.clear()
            await pilot.press("g")
            assert texts(screen)[0] == "line 0"
            await pilot.press("G")
            await until(pilot, lambda: texts(screen)[-1] == "line 999")
            assert log.bytes_read - before < 4 << 20
