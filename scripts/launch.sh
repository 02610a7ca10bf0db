#!/bin/sh
# Shared by run_distribute_train.sh and run_distribute_eval.sh:
#   launch.sh train|eval [--wait] DEVICE_NUM RANK_TABLE_FILE DATASET [WEIGHTS]
#   launch.sh train|eval --stop
# Starts torchrun in the background with one process for each of DEVICE_NUM devices of this host, the
# process of rank R in the folder train<R>/ or eval<R>/ of where it is called from, with its output in
# log.txt there. With several hosts in the table, call it once on each; the first one of the table is
# where they meet (MASTER_PORT, default 29500). torchrun's process number is in train.pid or eval.pid;
# --stop sends it SIGTERM, --wait returns its exit status. An earlier run is never deleted: every run
# has a dated folder of its own below output/, and two at once need two folders to be called from.
# Settings: PYTHON, SERVER_ID, MASTER_PORT, MAX_RESTARTS.
set -eu
unset CDPATH # cd would look elsewhere, and print where it went

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

# Whether this process number is still that of a launch: the system gives numbers again.
launched() {
    { tr '\0' ' ' <"/proc/$1/cmdline" || ps -o args= -p "$1"; } 2>/dev/null |
        grep -qE 'torch\.distributed\.run|launch\.sh'
}

command=$1
shift
pid_file=$command.pid
wait=0
case ${1:-} in
--wait)
    wait=1
    shift
    ;;
--stop)
    [ -f "$pid_file" ] || fail "--stop: there is no $pid_file here"
    process=$(cat "$pid_file")
    launched "$process" && kill -TERM "$process" 2>/dev/null ||
        fail "--stop: process $process has ended"
    echo "sent SIGTERM to process $process"
    exit 0
    ;;
esac
usage="sh scripts/run_distribute_$command.sh DEVICE_NUM RANK_TABLE_FILE DATASET"
if [ "$command" = eval ]; then
    [ $# -eq 4 ] || fail "usage: $usage CKPT_PATH"
else
    [ $# -eq 3 ] || [ $# -eq 4 ] || fail "usage: $usage [PRETRAINED_CKPT]"
fi

case $1 in
'' | *[!0-9]* | 0) fail "DEVICE_NUM must be a whole number of at least 1, got $1" ;;
esac
[ -f "$2" ] || fail "RANK_TABLE_FILE $2: there is no such file"
[ -d "$3" ] || fail "DATASET $3: there is no such folder"
[ $# -eq 3 ] || [ -e "$4" ] || fail "$4: there is no such file; weights were asked for"

! [ -f "$pid_file" ] || ! launched "$(cat "$pid_file")" ||
    fail "process $(cat "$pid_file") of an earlier call still runs in $PWD; end it with --stop, or" \
        "call this from another folder"

# Sets $absolute; a name may begin with a dash, have a backslash, or end with a line break.
make_absolute() {
    case $1 in
    /*) absolute=$1 ;;
    *) absolute=$PWD/$1 ;;
    esac
}

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
[ ! -x "$root/.venv/bin/python" ] || python=${PYTHON:-$root/.venv/bin/python}
PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
place=$("$python" -m densenet121.distributed.rank_table "$2" "$1" "${SERVER_ID:-}") || exit 2
of_place() {
    printf '%s\n' "$place" | sed -n "s/^$1=//p"
}
nodes=$(of_place NNODES)
first_rank=$(of_place FIRST_RANK)

device_num=${1#"${1%%[!0]*}"} # the shell takes 08 for an octal number
make_absolute "$3"
dataset=$absolute
[ $# -eq 3 ] || make_absolute "$4"
set -- --data_dir "$dataset" ${4:+--pretrained "$absolute"}
# Named now, so that a start after a failure goes on with this run and never with an earlier one.
[ "$command" = eval ] || set -- "$@" --output_dir "output/$(date +%Y-%m-%d_time_%H_%M_%S)"
# Each rank in a folder of its own; a process that torchrun starts again goes on where it stopped.
each='mkdir -p "$0$RANK" && cd "$0$RANK" &&
if [ "$0" = train ] && [ "${TORCHELASTIC_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume auto; fi
exec "$@" >>log.txt 2>&1 </dev/null'
set -- --nproc_per_node "$device_num" --max_restarts "${MAX_RESTARTS:-0}" --no_python \
    sh -c "$each" "$command" "$python" "$root/$command.py" "$@"
if [ "$nodes" -eq 1 ]; then
    set -- --standalone "$@"
else
    set -- --nnodes "$nodes" --node_rank "$(of_place NODE_RANK)" \
        --master_addr "$(of_place MASTER_ADDR)" --master_port "${MASTER_PORT:-29500}" "$@"
fi
nohup "$python" -m torch.distributed.run "$@" >"$command.out" 2>&1 </dev/null &
process=$!
echo $process >"$pid_file"
again=1
[ $wait -eq 0 ] || trap 'again=1; kill -TERM $process 2>/dev/null || :' TERM INT
last=$((first_rank + device_num - 1))
echo "started process $process; rank R of $first_rank to $last has its log in ${command}R/log.txt" \
    "and its results in ${command}R/output/"
[ $wait -eq 0 ] || {
    # A signal ends wait too; torchrun still saves and stops then.
    status=127
    while [ $again -eq 1 ]; do
        again=0 ended=0
        wait $process || ended=$?
        [ $ended -eq 127 ] || status=$ended # 127: the wait before had the status
    done
    exit $status
}
