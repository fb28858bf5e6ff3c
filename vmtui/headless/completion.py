"""Completion for shells, made from the parsers themselves. Names come from `vmtui ls --plain`."""

from __future__ import annotations

import argparse
import sys

from vmtui.core.query import KEYS, KINDS, STATES
from vmtui.headless.arguments import HIDDEN, VERBS, profile_parser, verb_parser
from vmtui.headless.exit_codes import ExitCode

# What a verb's words are: a resource for most; a `down` takes the name of a profile.
WORDS = {"schema": "profile config events", "completion": "bash zsh fish"}
CLOSED = {"kind": KINDS, "state": STATES}  # the keys of a filter whose values are known
NAMES = "vmtui ls --plain 2>/dev/null"
PROFILES = NAMES + " | cut -d/ -f1 | sort -u"
NO_WORDS = frozenset({"ls", "events", "doctor", "backends", *WORDS})
TERMS = " ".join(f"{key}:{value}" for key in KEYS for value in CLOSED.get(key, ("",)))


def main(args: argparse.Namespace) -> int:
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[args.shell]())
    return ExitCode.OK


def _verbs() -> list[str]:
    return [name for name in VERBS if name not in HIDDEN]


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def _longs(parser: argparse.ArgumentParser) -> str:
    return " ".join(option for action in _options(parser) for option in action.option_strings if option[1] == "-")


def bash() -> str:
    cases = []
    for name in _verbs():
        words = f'"{WORDS[name]}"' if name in WORDS else f'"$({PROFILES})"' if name == "down" else f'"$({NAMES})"'
        if name in NO_WORDS - set(WORDS):
            words = '""'
        cases.append(f'    {name}) options="{_longs(verb_parser(name))}"; words={words} ;;')
    verbs, longs = " ".join(_verbs()), _longs(profile_parser())
    newline = "\n"
    return f"""# bash completion for vmtui
_vmtui() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local verb=${{COMP_WORDS[1]}} options="" words=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$cur")); return
  fi
  if [[ $verb == -* && ( $previous == --profile || $previous == -p ) ]]; then
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
    about = "\n".join(f"    {_quoted(f'{name}:{VERBS[name].about}')}" for name in _verbs())
    cases = []
    for name in _verbs():
        words = f'(${{(f)"$({PROFILES if name == "down" else NAMES})"}})'
        words = f"({WORDS[name]})" if name in WORDS else f"({TERMS})" if name == "ls" else words
        words = "()" if name in NO_WORDS - {"ls", *WORDS} else words
        cases.append(f"    {name}) options=({_longs(verb_parser(name))}); names={words} ;;")
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
  if [[ $words[2] == -* && ( $words[CURRENT-1] == --profile || $words[CURRENT-1] == -p ) ]]; then
    _files -g '*.toml'; return
  fi
  case $words[2] in
{newline.join(cases)}
    -*) options=({_longs(profile_parser())}); names=(${{(f)"$({NAMES})"}}) ;;
  esac
  if [[ $words[CURRENT] == -* ]]; then compadd -- $options; else compadd -- $names; fi
}}
if [[ $funcstack[1] == _vmtui ]]; then _vmtui "$@"; else compdef _vmtui vmtui; fi
"""


def fish() -> str:
    lines = ["# fish completion for vmtui", "complete -c vmtui -f"]
    first = "__fish_use_subcommand"
    lines += [f"complete -c vmtui -n {first} -a {name} -d {_quoted(VERBS[name].about)}" for name in _verbs()]
    lines += [_fish_option(action, first) for action in _options(profile_parser())]
    for name in _verbs():
        seen = f"'__fish_seen_subcommand_from {name}'"
        words = TERMS if name == "ls" else WORDS.get(name, "")
        if name not in NO_WORDS:
            words = f"({PROFILES if name == 'down' else NAMES})"
        if words:
            lines.append(f"complete -c vmtui -n {seen} -a {_quoted(words)}")
        lines += [_fish_option(action, seen) for action in _options(verb_parser(name))]
    return "\n".join(lines) + "\n"


def _fish_option(action: argparse.Action, condition: str) -> str:
    names = "".join(
        f" -l {option[2:]}" if option[1] == "-" else f" -s {option[1:]}" for option in action.option_strings
    )
    choices = f" -x -a {_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
    takes = " -r -F" if action.dest == "profile" else " -x" if action.nargs not in (0, "?") and not choices else ""
    return f"complete -c vmtui -n {condition}{names}{takes}{choices} -d {_quoted(action.help or '')}"


def _quoted(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "'\\''") + "'"
