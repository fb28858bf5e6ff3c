# The parent of one QEMU: starts it, keeps what it says within bounds, notes how it ended, tells vmtui.
# Arguments: the run's folder, the serial log, and the command. Fds 3 to 8 are pipes between here and QEMU.
umask 077
ulimit -c 0
run=$1
export LOG="$2" SHELL=/bin/sh
shift 2
cd /

# identity PID: "PID START_TICKS BOOT_ID" (field 22 of proc(5) stat, counted from behind the name)
identity() {
    read -r stat <"/proc/$1/stat" || return
    read -r boot </proc/sys/kernel/random/boot_id
    pid=$1
    set -- ${stat##*) }
    echo "$pid ${20} $boot"
}

# note NAME TEXT: the file appears whole
note() { printf '%s\n' "$2" >"$run/.$1" && mv "$run/.$1" "$run/$1"; }

note parent "$(identity $$)"

# Whoever started this must have seen it before there is a QEMU: what dies in between leaves nothing that nobody knows.
read -r word && [ "$word" = go ] || exit 0

# A named pipe that is opened at both ends and removed is a pipe without a name. QEMU alone keeps the writing ends, so
# the readers end when it does; and they read on when their file is full or the disk is, so that it never waits.
mkfifo "$run/.log" "$run/.status" "$run/.errors" || exit 1
exec 9<>"$run/.log" 3<"$run/.log" 4>"$run/.log" 9>&-
exec 9<>"$run/.status" 5<"$run/.status" 6>"$run/.status" 9>&-
exec 9<>"$run/.errors" 7<"$run/.errors" 8>"$run/.errors" 9>&-
rm "$run/.log" "$run/.status" "$run/.errors"

{
    split -b 4194304 --filter='[ ! -s "$LOG" ] || mv -f "$LOG" "$LOG.1"; exec cat >>"$LOG"'
    exec cat >/dev/null
} <&3 2>/dev/null 3<&- 4>&- 5<&- 6>&- 7<&- 8>&- &
log_reader=$!
{
    dd bs=256 count=512 of="$run/status"
    exec cat >/dev/null
} <&5 2>/dev/null 3<&- 4>&- 5<&- 6>&- 7<&- 8>&- &
status_reader=$!
{
    dd bs=4096 count=64 of="$run/errors"
    exec cat >/dev/null
} <&7 2>/dev/null 3<&- 4>&- 5<&- 6>&- 7<&- 8>&- &
errors_reader=$!

"$@" </dev/null >/dev/null 2>&8 3<&- 5<&- 7<&- 8>&- &
qemu=$!
exec 3<&- 4>&- 5<&- 6>&- 7<&- 8>&-
note process "$(identity $qemu)"
wait $qemu
code=$?
wait $log_reader $status_reader $errors_reader
note exit "$code"

# It refused (exit) or could not (abort) before the start was confirmed: whoever started it knows.
case $code in 1 | 134) [ -e "$run/started" ] || exit 0 ;; esac
[ -e "$run/reap" ] && exec /bin/sh "$run/reap"
