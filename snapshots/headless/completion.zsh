#compdef vmtui
# zsh completion for vmtui
_vmtui() {
  local -a verbs options names
  verbs=(
    'ls:list the resources that are there'
    'inspect:show all that is known of one'
    'start:start what is stopped'
    'stop:stop what runs'
    'restart:stop and start again'
    'pause:freeze what runs'
    'resume:go on with what is paused'
    'kill:end it at once'
    'rm:remove'
    'logs:show its log'
    'exec:run a command inside'
    'console:attach to its console; ctrl+] leaves it'
    'stats:measure what runs'
    'events:what happened'
    'plan:show what a profile would change; exit 2 if anything'
    'apply:make the host as a profile says'
    'down:take a profile down by its name'
    'doctor:try every backend, say what is missing'
    'backends:list the backends and what they can'
    'schema:print a JSON Schema'
    'serve:serve the panel and the verbs over SSH'
    'approvals:list what waits for a second person'
    'approve:agree to what another asks for'
    'deny:refuse it'
    'audit:what was done over SSH'
    'recordings:recorded sessions'
    'completion:print completion for a shell'
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe verb verbs; return
  fi
  if [[ $words[2] == -* && ( $words[CURRENT-1] == --profile || $words[CURRENT-1] == -p ) ||
        ( $words[2] == plan || $words[2] == apply ) && $words[CURRENT] != -* && $CURRENT -eq 3 ]]; then
    _files -g '*.toml'; return
  fi
  case $words[2] in
    ls) options=(--help --profile-name --kind --plain --json); names=(kind:network kind:disk kind:vm kind:container kind:sandbox state:absent state:available state:stopped state:running state:paused state:exited state:broken state:problem profile: name: backend: address: label:) ;;
    inspect) options=(--help --exits --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    start) options=(--help --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    stop) options=(--help --grace --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    restart) options=(--help --grace --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    pause) options=(--help --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    resume) options=(--help --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    kill) options=(--help --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    rm) options=(--help --purge --yes --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    logs) options=(--help --follow --lines --timestamps --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    exec) options=(--help --interactive --tty --user --working-dir --environment --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    console) options=(--help --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    stats) options=(--help --watch --interval --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    events) options=(--help --follow --lines --json); names=() ;;
    plan) options=(--help --only --recreate --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    apply) options=(--help --only --recreate --timeout --on-failure --trace --yes --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
    down) options=(--help --purge --only --yes --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null | cut -d/ -f1 | sort -u)"}) ;;
    doctor) options=(--help --json); names=() ;;
    backends) options=(--help --json); names=() ;;
    schema) options=(--help --json); names=(profile config events) ;;
    serve) options=(--help --listen --config --keys --host-key --web --demo --check --fingerprint --rotate-host-key); names=() ;;
    approvals) options=(--help --json); names=() ;;
    approve) options=(--help --json); names=() ;;
    deny) options=(--help --json); names=() ;;
    audit) options=(--help --lines --who --json --head); names=(ls verify) ;;
    recordings) options=(--help --json --speed --idle --yes); names=(ls play rm) ;;
    completion) options=(--help); names=(bash zsh fish) ;;
    -*) options=(--help --version --read-only --plain --demo --profile --adopt --plan --check --down --foreground --purge --only --recreate --timeout --on-failure --trace --yes --json); names=(${(f)"$(vmtui ls --plain 2>/dev/null)"}) ;;
  esac
  if [[ $words[CURRENT] == -* ]]; then compadd -- $options; else compadd -- $names; fi
}
if [[ $funcstack[1] == _vmtui ]]; then _vmtui "$@"; else compdef _vmtui vmtui; fi
