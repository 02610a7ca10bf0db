#!/bin/sh
# Shared by run_distribute_train.sh and run_distribute_eval.sh:
#   launch.sh train|eval DEVICE_NUM RANK_TABLE_FILE DATASET [WEIGHTS]
# Starts one process in the background, in the folder train0/ or eval0/ of where it is called from,
# with its output in log.txt and its process number in pid there. An earlier run is never deleted:
# every run has a dated folder of its own below output/.
set -eu

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

command=$1
shift
usage="sh scripts/run_distribute_$command.sh DEVICE_NUM RANK_TABLE_FILE DATASET"
if [ "$command" = eval ]; then
    [ $# -eq 4 ] || fail "usage: $usage CKPT_PATH"
else
    [ $# -eq 3 ] || [ $# -eq 4 ] || fail "usage: $usage [PRETRAINED_CKPT]"
fi

case $1 in
'' | *[!0-9]* | 0) fail "DEVICE_NUM must be a whole number of at least 1, got $1" ;;
1) ;;
*) fail "DEVICE_NUM is $1; this version computes on one device: pass 1" ;;
esac
[ -f "$2" ] || fail "RANK_TABLE_FILE $2: there is no such file"
[ -d "$3" ] || fail "DATASET $3: there is no such folder"
[ $# -eq 3 ] || [ -e "$4" ] || fail "$4: there is no such file; weights were asked for"

absolute() {
    echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
}

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
[ ! -x "$root/.venv/bin/python" ] || python=${PYTHON:-$root/.venv/bin/python}
dataset=$(absolute "$3")
folder=${command}0
if [ $# -eq 4 ]; then
    set -- --data_dir "$dataset" --is_distributed 0 --pretrained "$(absolute "$4")"
else
    set -- --data_dir "$dataset" --is_distributed 0
fi
mkdir -p "$folder"
cd "$folder"
nohup "$python" "$root/$command.py" "$@" >>log.txt 2>&1 </dev/null &
echo $! >pid
echo "started process $!; its log is $folder/log.txt, its results go to $folder/output/"
