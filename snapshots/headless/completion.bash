# bash completion for vmtui
_vmtui() {
  local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local verb=${COMP_WORDS[1]} options="" words=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 && $cur != -* ]]; then
    COMPREPLY=($(compgen -W "ls inspect start stop restart pause resume kill rm logs exec console stats events plan apply down doctor backends schema serve approvals approve deny audit recordings completion" -- "$cur")); return
  fi
  if [[ $verb == -* && ( $previous == --profile || $previous == -p ) ||
        ( $verb == plan || $verb == apply ) && $COMP_CWORD -eq 2 && $cur != -* ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -X '!*.toml' -- "$cur") $(compgen -d -- "$cur")); return
  fi
  case $verb in
    ls) options="--help --profile-name --kind --plain --json"; words="" ;;
    inspect) options="--help --exits --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    start) options="--help --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    stop) options="--help --grace --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    restart) options="--help --grace --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    pause) options="--help --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    resume) options="--help --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    kill) options="--help --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    rm) options="--help --purge --yes --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    logs) options="--help --follow --lines --timestamps --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    exec) options="--help --interactive --tty --user --working-dir --environment --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    console) options="--help --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    stats) options="--help --watch --interval --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    events) options="--help --follow --lines --json"; words="" ;;
    plan) options="--help --only --recreate --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    apply) options="--help --only --recreate --timeout --on-failure --trace --yes --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    down) options="--help --purge --only --yes --json"; words="$(vmtui ls --plain 2>/dev/null | cut -d/ -f1 | sort -u)" ;;
    doctor) options="--help --json"; words="" ;;
    backends) options="--help --json"; words="" ;;
    schema) options="--help --json"; words="profile config events" ;;
    serve) options="--help --listen --config --keys --host-key --web --demo --check --fingerprint --rotate-host-key"; words="" ;;
    approvals) options="--help --json"; words="" ;;
    approve) options="--help --json"; words="" ;;
    deny) options="--help --json"; words="" ;;
    audit) options="--help --lines --who --json --head"; words="ls verify" ;;
    recordings) options="--help --json --speed --idle --yes"; words="ls play rm" ;;
    completion) options="--help"; words="bash zsh fish" ;;
    -*) options="--help --version --read-only --plain --demo --profile --adopt --plan --check --down --foreground --purge --only --recreate --timeout --on-failure --trace --yes --json"; words="$(vmtui ls --plain 2>/dev/null)" ;;
    *) return ;;
  esac
  if [[ $cur == -* ]]; then words=$options
  elif [[ $verb == ls ]]; then  # a colon may be a word of its own
    local key=""
    if [[ $cur == : ]]; then key=$previous cur=""
    elif [[ $previous == : ]]; then key=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $cur == *:* ]]; then key=$cur words="kind:network kind:disk kind:vm kind:container kind:sandbox state:absent state:available state:stopped state:running state:paused state:exited state:broken state:problem profile: name: backend: address: label:"
    else words="kind: state: profile: name: backend: address: label:"; compopt -o nospace 2>/dev/null; fi
    case $key in
      kind) words="network disk vm container sandbox" ;;
      state) words="absent available stopped running paused exited broken problem" ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _vmtui vmtui
