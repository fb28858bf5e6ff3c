"""Completion for shells, made from the parsers themselves. Names come from `vmtui ls --plain`."""

from __future__ import annotations

import argparse
import sys

from vmtui.core.query import KEYS, KINDS, STATES
from vmtui.headless.arguments import profile_parser
from vmtui.headless.commands import FAMILIES, HIDDEN, VERBS, parser_of
from vmtui.headless.exit_codes import ExitCode

# What the words of a verb are: a resource for most; a `down` takes the name of a profile.
WORDS = {"schema": "profile config events", "completion": "bash zsh fish"}
CLOSED = {"kind": KINDS, "state": STATES}  # the keys of a filter whose values are known
NAMES = "vmtui ls --plain 2>/dev/null"
PROFILES = NAMES + " | cut -d/ -f1 | sort -u"
NO_WORDS = frozenset({"ls", "events", "doctor", "backends", "serve", "approvals", "approve", "deny"})
FILES = ("plan", "apply")
FILE_OPTIONS = frozenset({"profile", "config", "keys", "host_key"})
TERMS = " ".join(f"{key}:{value}" for key in KEYS for value in CLOSED.get(key, ("",)))


def main(args: argparse.Namespace) -> int:
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[args.shell]())
    return ExitCode.OK


def _firsts() -> list[str]:
    """The first words of all verbs."""
    return list(dict.fromkeys(name.partition(" ")[0] for name in VERBS if name not in HIDDEN))


def _of(first: str) -> list[str]:
    """The verbs that begin with it: itself, or those of a family."""
    return [name for name in VERBS if name.partition(" ")[0] == first]


def _about(first: str) -> str:
    return FAMILIES.get(first) or VERBS[first].about


def _closed(first: str) -> str:
    """The words that may follow, if they are known beforehand."""
    return " ".join(name.partition(" ")[2] for name in _of(first)) if first in FAMILIES else WORDS.get(first, "")


def _options(*parsers: argparse.ArgumentParser) -> list[argparse.Action]:
    made = {tuple(action.option_strings): action for parser in parsers for action in parser._actions}
    return [action for options, action in made.items() if options]


def _options_of(first: str) -> list[argparse.Action]:
    return _options(*map(parser_of, _of(first)))


def _longs(options: list[argparse.Action]) -> str:
    return " ".join(option for action in options for option in action.option_strings if option[1] == "-")


def bash() -> str:
    cases = []
    for first in _firsts():
        words = f'"{_closed(first)}"' if _closed(first) or first in NO_WORDS else f'"$({NAMES})"'
        words = f'"$({PROFILES})"' if first == "down" else words
        cases.append(f'    {first}) options="{_longs(_options_of(first))}"; words={words} ;;')
    verbs, longs = " ".join(_firsts()), _longs(_options(profile_parser()))
    newline = "\n"
    return f"""# bash completion for vmtui
_vmtui() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local verb=${{COMP_WORDS[1]}} options="" words=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$cur")); return
  fi
  if [[ $verb == -* && ( $previous == --profile || $previous == -p ) ||
        ( {" || ".join(f"$verb == {name}" for name in FILES)} ) && $COMP_CWORD -eq 2 && $cur != -* ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -X '!*.toml' -- "$cur") $(compgen -d -- "$cur")); return
  fi
  case $verb in
{newline.join(cases)}
    -*) options="{longs}"; words="$({NAMES})" ;;
    *) return ;;
  esac
  if [[ $cur == -* ]]; then words=$options
  elif [[ $verb == ls ]]; then  # a colon may be a word of its own
    local key=""
    if [[ $cur == : ]]; then key=$previous cur=""
    elif [[ $previous == : ]]; then key=${{COMP_WORDS[COMP_CWORD-2]}}
    elif [[ $cur == *:* ]]; then key=$cur words="{TERMS}"
    else words="{" ".join(f"{key}:" for key in KEYS)}"; compopt -o nospace 2>/dev/null; fi
    case $key in
{newline.join(f'      {key}) words="{" ".join(values)}" ;;' for key, values in CLOSED.items())}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -F _vmtui vmtui
"""


def zsh() -> str:
    about = "\n".join(f"    {_quoted(f'{first}:{_about(first)}')}" for first in _firsts())
    cases = []
    for first in _firsts():
        closed = TERMS if first == "ls" else _closed(first)
        words = f"({closed})" if closed or first in NO_WORDS else f'(${{(f)"$({NAMES})"}})'
        words = f'(${{(f)"$({PROFILES})"}})' if first == "down" else words
        cases.append(f"    {first}) options=({_longs(_options_of(first))}); names={words} ;;")
    newline = "\n"
    return f"""#compdef vmtui
# zsh completion for vmtui
_vmtui() {{
  local -a verbs options names
  verbs=(
{about}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe verb verbs; return
  fi
  if [[ $words[2] == -* && ( $words[CURRENT-1] == --profile || $words[CURRENT-1] == -p ) ||
        ( {" || ".join(f"$words[2] == {name}" for name in FILES)} ) && $words[CURRENT] != -* && $CURRENT -eq 3 ]]; then
    _files -g '*.toml'; return
  fi
  case $words[2] in
{newline.join(cases)}
    -*) options=({_longs(_options(profile_parser()))}); names=(${{(f)"$({NAMES})"}}) ;;
  esac
  if [[ $words[CURRENT] == -* ]]; then compadd -- $options; else compadd -- $names; fi
}}
if [[ $funcstack[1] == _vmtui ]]; then _vmtui "$@"; else compdef _vmtui vmtui; fi
"""


def fish() -> str:
    lines = ["# fish completion for vmtui", "complete -c vmtui -f"]
    begin = "__fish_use_subcommand"
    lines += [f"complete -c vmtui -n {begin} -a {first} -d {_quoted(_about(first))}" for first in _firsts()]
    lines += [_fish_option(action, begin) for action in _options(profile_parser())]
    for first in _firsts():
        seen = f"'__fish_seen_subcommand_from {first}'"
        words = TERMS if first == "ls" else _closed(first)
        if not words and first not in NO_WORDS:
            words = f"({PROFILES if first == 'down' else NAMES})"
        if words:
            lines.append(f"complete -c vmtui -n {seen} -a {_quoted(words)}")
        if first in FILES:
            lines.append(f"complete -c vmtui -n {seen} -F")
        lines += [_fish_option(action, seen) for action in _options_of(first)]
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action, condition: str) -> str:
    names = "".join(
        f" -l {option[2:]}" if option[1] == "-" else f" -s {option[1:]}" for option in action.option_strings
    )
    choices = f" -x -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
    takes = " -r -F" if action.dest in FILE_OPTIONS else " -x" if action.nargs not in (0, "?") and not choices else ""
    return f"complete -c vmtui -n {condition}{names}{takes}{choices} -d {_quoted(action.help or '')}"


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "'\\''") + "'"
