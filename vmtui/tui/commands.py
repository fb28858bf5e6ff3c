"""What can be typed after ":". Each command has a name, what it takes, and what it does."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.suggester import Suggester

from vmtui.core.errors import Fault, NotFound, NotPermitted
from vmtui.core.policy import Verb
from vmtui.core.resource import Kind
from vmtui.tui.columns import COLUMNS
from vmtui.tui.rights import EDIT, FILES, LOCAL, NEW, NOTHING, UNDO, VIEWS, Need, of
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.resources import VERBS
from vmtui.tui.view import GROUPS
from vmtui.tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

Run = Callable[["Panel", list[str]], None]
Complete = Callable[["Panel", str], Iterable[str]]


def _nothing(panel: Panel, word: str) -> Iterable[str]:  # noqa: ARG001
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """`takes` is shown in the help; `complete` offers words for its last argument; without `needs` none is offered."""

    about: str
    run: Run
    takes: str = ""
    complete: Complete = _nothing
    needs: Need = NOTHING


def _refs(panel: Panel, word: str) -> Iterable[str]:  # noqa: ARG001
    return (str(ref) for ref in panel.feed.model.items) if panel.ready else ()


def _files(panel: Panel, word: str) -> Iterable[str]:
    if not panel.rights.has(FILES):
        return ()
    folder = Path(word).expanduser() if word.endswith("/") else Path(word).expanduser().parent
    try:
        entries = sorted(folder.iterdir())[:500]
    except OSError:
        return ()
    base = word if word.endswith("/") else word[: len(word) - len(Path(word).name)]
    return (f"{base}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries)


def _view(name: str) -> Run:
    return lambda panel, _: panel.action_view(name)


def _named(name: str) -> Run:
    return lambda panel, _: panel.show(panel.view_named(name))


def _words(words: Iterable[str]) -> Complete:
    return lambda panel, word: list(words)  # noqa: ARG005


def _theme(panel: Panel, words: list[str]) -> None:
    if not words:
        panel.action_theme()
    elif words[0] in panel.available_themes:
        panel.theme = words[0]
    else:
        raise NotFound(f"there is no theme {words[0]!r}", hint=":theme shows them")


def _filter(panel: Panel, words: list[str]) -> None:
    panel.show(panel.home)
    panel.home.filter_changed(" ".join(words))


def _sort(panel: Panel, words: list[str]) -> None:
    if len(words) != 1 or words[0] not in COLUMNS:
        raise NotFound(f"sort by one of: {', '.join(COLUMNS)}")
    panel.home.sort_by(words[0])


def _group(panel: Panel, words: list[str]) -> None:
    if len(words) != 1 or words[0] not in GROUPS:
        raise NotFound(f"group by one of: {', '.join(GROUPS)}")
    panel.home.group_by(words[0])


def _verb(name: str) -> Run:
    def run(panel: Panel, words: list[str]) -> None:
        statuses = [item.status for item in panel.feed.model.items.values()]
        refs = [panel.workspace.resolve(word, statuses) for word in words]
        items = panel.feed.model.items
        panel.home.act(name, [items[ref].status for ref in refs if ref in items] if refs else None)

    return run


def _of_ref(open_it: Callable[[Panel, Sequence[str]], None]) -> Run:
    return lambda panel, words: open_it(panel, words)


def _go(panel: Panel, words: Sequence[str]) -> None:
    statuses = [item.status for item in panel.feed.model.items.values()]
    panel.go_to(panel.workspace.resolve(" ".join(words), statuses))


def _logs(panel: Panel, words: Sequence[str]) -> None:
    statuses = [item.status for item in panel.feed.model.items.values()]
    if words:
        panel.open_logs([panel.workspace.resolve(word, statuses) for word in words])
    else:
        panel.home.act_logs()


def _console(panel: Panel, words: Sequence[str]) -> None:
    statuses = [item.status for item in panel.feed.model.items.values()]
    if words:
        panel.open_console(panel.workspace.resolve(words[0], statuses))
    else:
        panel.home.act_console()


def _exec(panel: Panel, words: Sequence[str]) -> None:
    if not words:
        raise NotFound("which resource, which command?", hint=":exec web sh")
    statuses = [item.status for item in panel.feed.model.items.values()]
    panel.open_exec(panel.workspace.resolve(words[0], statuses), tuple(words[1:]) or ("sh",))


def _profile(panel: Panel, words: Sequence[str]) -> None:
    panel.open_profile(Path(" ".join(words)).expanduser() if words else None)


def _new(panel: Panel, words: Sequence[str]) -> None:
    if words and words[0] not in set(Kind):
        raise NotFound(f"there is no kind {words[0]!r}", hint=f"one of: {', '.join(Kind)}")
    panel.open_edit(Kind(words[0]) if words else None)


def _quit(panel: Panel) -> None:
    panel.leave()


COMMANDS: dict[str, Command] = {
    "resources": Command("the list of everything", _view("resources")),
    "logs": Command("logs of these, or of what is selected", _of_ref(_logs), "[REF…]", _refs, of(Verb.LOGS)),
    "console": Command("the console of one", _of_ref(_console), "[REF]", _refs, of(Verb.CONSOLE)),
    "exec": Command("run a command inside", _of_ref(_exec), "REF [COMMAND…]", _refs, of(Verb.EXEC)),
    "go": Command("to a resource", _of_ref(_go), "REF", _refs),
    "profile": Command("plans, applies and drift", _of_ref(_profile), "[FILE]", _files, FILES),
    "new": Command("make a resource", _of_ref(_new), "[KIND]", _words(Kind), NEW),
    "edit": Command("edit what is selected", _view("edit"), needs=EDIT),
    "map": Command("networks and who is on them", _view("map")),
    "doctor": Command("what the backends need", _named("doctor")),
    "events": Command("what happened", _named("events"), needs=VIEWS["events"]),
    "actions": Command("what vmtui ran", _named("actions"), needs=VIEWS["actions"]),
    "messages": Command("what was said in passing", _named("notices")),
    "approvals": Command("what others ask for", _named("approvals"), needs=of(Verb.APPROVE)),
    "filter": Command("the list by a query", _filter, "QUERY"),
    "sort": Command("the list by a column", _sort, "COLUMN", _words(COLUMNS)),
    "group": Command("the list", _group, "|".join(GROUPS), _words(GROUPS)),
    **{
        name: Command(f"{name} these, or what is selected", _verb(name), "[REF…]", _refs, of(Verb(verb)))
        for name, verb in VERBS.items()
    },
    "undo": Command("take back the last act", lambda panel, _: panel.home.action_undo(), needs=UNDO),
    "demo": Command("show made-up resources", lambda panel, _: panel.action_demo(), needs=LOCAL),
    "theme": Command("choose a theme", _theme, "[NAME]", lambda panel, _: sorted(panel.available_themes)),
    "mouse": Command("on or off", lambda panel, _: panel.action_mouse()),
    "help": Command("the keys in force", lambda panel, _: panel.action_help()),
    "quit": Command("leave; what runs goes on", lambda panel, _: _quit(panel)),
}
EARLY = frozenset({"theme", "mouse", "help", "quit"})  # what needs no workspace
ALIASES = {"q": "quit", "q!": "quit", "h": "help", "rm": "delete", "ls": "resources", "n": "new"}


def offered_by(panel: Panel) -> list[str]:
    """The names of the commands that who sits there has a right to."""
    return [name for name, command in COMMANDS.items() if panel.rights.has(command.needs)]


def execute(panel: Panel, text: str) -> None:
    """Raises Fault for what is no command, or what it refuses."""
    try:
        name, *words = shlex.split(text) or [""]
    except ValueError as error:
        raise NotFound(f"cannot read {text!r}: {str(error).lower()}") from None
    if not name:
        return
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        offered = offered_by(panel)
        close = [known for known in offered if known.startswith(name)]
        if len(close) != 1:
            hint = f"one of: {', '.join(close or offered)}"
            raise NotFound(f"there is no command {name!r}", hint=hint)
        name = close[0]
    if why := panel.rights.lacks(COMMANDS[name].needs):
        panel.say(why, "warning")
        return
    if not panel.ready and name not in EARLY:
        raise NotPermitted("what is there is still being read", hint="try again in a moment")
    COMMANDS[name].run(panel, words)


class Completion(Suggester):
    """The first command, or the first argument, that goes on from what is typed."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._panel = panel

    async def get_suggestion(self, value: str) -> str | None:
        name, space, rest = value.partition(" ")
        if not space:
            return next((known for known in offered_by(self._panel) if known.startswith(name)), None)
        command = COMMANDS.get(ALIASES.get(name, name))
        if command is None or not self._panel.rights.has(command.needs):
            return None
        word = rest.rsplit(" ", 1)[-1]
        found = next((each for each in command.complete(self._panel, word) if str(each).startswith(word)), None)
        return None if found is None or not word else value[: len(value) - len(word)] + str(found)


class CommandPrompt(Prompt):
    """Takes one command; tab or right accepts what is suggested."""

    def __init__(self, screen: PanelScreen) -> None:
        super().__init__(screen, ":", "", Completion(screen.panel))

    def accepted(self, text: str) -> None:
        panel = self._screen.panel
        try:
            self.close()
            execute(panel, text)
        except Fault as fault:
            panel.say(f"{fault}{f' ({fault.hint})' if fault.hint else ''}", "warning")
        except Exception as error:
            panel.fail(error, f":{text}")
