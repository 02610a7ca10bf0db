#!/bin/sh
# Several hosts on one machine: network namespaces with addresses of their own, joined by a bridge.
#   sh tests/system/hosts.sh [PYTHON]
# Trains on 2 hosts and on 3 (HOSTS=2: on 2 alone), kills one with SIGKILL, cuts another from the
# network and brings it back; the run must go on by itself and end with the weights, to the bit, of a
# run that nobody disturbed. Then every host evaluates together. Needs root, iproute2 and network namespaces; without
# them it says so and ends with exit status 0.
# STORE=etcd: the hosts meet in an etcd on a host of its own (etcd 3.4, and python-etcd for torchrun),
# and the one that is killed and cut off is the first, where they would meet otherwise.
set -u
PYTHON=${1:-python3}
skip() {
    echo "skipped: $*"
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip "root is needed to make network namespaces"
command -v ip >/dev/null || skip "the command ip (iproute2) is not here"
STORE=${STORE:-c10d}
[ "$STORE" = c10d ] || command -v etcd >/dev/null || skip "the command etcd (Debian: etcd-server) is not here"
tag=d$$
ip netns add "$tag" 2>/dev/null || skip "this system makes no network namespaces"

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
OMP_NUM_THREADS=1
# Else torchrun 2.13 tells the address of rank 0 in the first round alone, and a host that joins again
# waits for it in vain.
TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export PYTHONPATH OMP_NUM_THREADS TORCH_DISABLE_SHARE_RDZV_TCP_STORE

hosts=""
clean() {
    for host in $hosts; do
        ip netns pids "$tag$host" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
        ip netns del "$tag$host" 2>/dev/null
    done
    ip netns del "$tag" 2>/dev/null
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM

fail() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.out; do echo "== $log" >&2 && tail -n 15 "$log" >&2; done
    exit 1
}

# The bridge has a namespace too, so that nothing of this machine's network is touched.
ip -n "$tag" link add bridge type bridge || skip "this system makes no bridges"
ip -n "$tag" link set bridge up
for host in 1 2 3 4; do
    ip netns add "$tag$host" || skip "this system makes no network namespaces"
    hosts="$hosts $host"
    ip link add "$tag$host" netns "$tag" type veth peer name net0 netns "$tag$host" ||
        skip "this system makes no veth pairs"
    ip -n "$tag" link set "$tag$host" master bridge up
    ip -n "$tag$host" address add "10.83.0.$host/24" dev net0
    ip -n "$tag$host" link set net0 up
    ip -n "$tag$host" link set lo up
done

"$PYTHON" - "$work" <<'IMAGES' || exit 1
import sys
from pathlib import Path
import cv2
import numpy as np
for split, count in (("train", 48), ("val", 17)):
    for label, name in enumerate(("ant", "bee", "cat")):
        folder = Path(sys.argv[1], "images", split, name)
        folder.mkdir(parents=True)
        for index in range(count):
            noise = np.random.default_rng([label, index, count]).integers(0, 90, (24, 24, 3))
            cv2.imwrite(str(folder / f"{index:03d}.png"), (noise + 60 * label).astype(np.uint8))
IMAGES

# The store is the fourth host.
if [ "$STORE" = etcd ]; then
    ip netns exec "${tag}4" etcd --enable-v2 --name store --data-dir "$work/etcd" \
        --listen-client-urls http://10.83.0.4:2379 --advertise-client-urls http://10.83.0.4:2379 \
        --listen-peer-urls http://10.83.0.4:2380 --initial-advertise-peer-urls http://10.83.0.4:2380 \
        --initial-cluster store=http://10.83.0.4:2380 >"$work/etcd.log" 2>&1 </dev/null &
    meeting="--rdzv_backend etcd-v2 --rdzv_endpoint 10.83.0.4:2379"
else
    meeting="--rdzv_backend c10d --rdzv_endpoint 10.83.0.1:29400"
fi

# host NUMBER HOSTS NAME COMMAND...: one agent of torchrun on a host; the first host is the meeting
# place. gloo takes the interface by its name. Which host gets which rank is torchrun's choice.
host() {
    number=$1 count=$2 name=$3
    shift 3
    # shellcheck disable=SC2086 # several arguments
    GLOO_SOCKET_IFNAME=net0 ip netns exec "$tag$number" "$PYTHON" -m torch.distributed.run \
        --nnodes "$count" --nproc_per_node 1 --rdzv_id "$name" $meeting \
        --rdzv_conf "join_timeout=120,is_host=$([ "$number" -eq 1 ] && echo 1 || echo 0)" \
        --max_restarts 5 --local_addr "10.83.0.$number" \
        -m densenet121 "$@" >>"$work/$name.$number.out" 2>&1 </dev/null &
    agents="$agents $!"
}

train() {
    for number in $(seq "$1"); do start_training "$number" "$1" "$2"; done
}
start_training() {
    host "$1" "$2" "$3" train --data_dir "$work/images" --output_dir "$work/$3" --resume auto \
        --net densenet40 --image_size 16 --amp fp32 --device cpu --per_batch_size 8 \
        --max_epoch 4 --ckpt_interval 1 --log_interval 1 --timeout_seconds 5 --workers 1
}

# until_there PATTERN NAME SECONDS: whether the output of any host comes to hold the pattern.
until_there() {
    for _ in $(seq $(($3 * 5))); do
        cat "$work/$2".*.out 2>/dev/null | grep -q "$1" && return 0
        sleep 0.2
    done
    return 1
}
ended() {
    until_there "end network train" "$1" 150 || fail "$1 did not end"
    wait_for_hosts
}
same() {
    cmp "$work/$1/last.safetensors" "$work/$2/last.safetensors" ||
        fail "$1 and $2 differ"
}
# The store goes on.
agents=""
wait_for_hosts() {
    for agent in $agents; do wait "$agent"; done
    agents=""
}
pids_of() {
    ip netns pids "$tag$1"
}

for count in ${HOSTS:-2 3}; do
    victim=$count
    [ "$STORE" = c10d ] || victim=1
    train "$count" "quiet$count"
    ended "quiet$count"

    # A host loses its power: all its processes die at once. It comes back and joins again.
    train "$count" "killed$count"
    until_there 'epoch\[1\]' "killed$count" 90 || fail "killed$count did not begin"
    # shellcheck disable=SC2046 # many numbers
    kill -KILL $(pids_of "$victim")
    sleep 2
    start_training "$victim" "$count" "killed$count"
    ended "killed$count"
    until_there "resumed from" "killed$count" 1 || fail "killed$count was not disturbed"
    same "killed$count" "quiet$count"
    echo "$count hosts, one killed and back: the same weights to the bit"

    # A cable is drawn and put back.
    train "$count" "cut$count"
    until_there 'epoch\[1\]' "cut$count" 90 || fail "cut$count did not begin"
    ip -n "$tag" link set "$tag$victim" down
    sleep 12
    ip -n "$tag" link set "$tag$victim" up
    ended "cut$count"
    until_there "resumed from" "cut$count" 1 || fail "cut$count was not disturbed"
    same "cut$count" "quiet$count"
    echo "$count hosts, one cut off and back: the same weights to the bit"

    for number in $(seq "$count"); do
        host "$number" "$count" "eval$count" eval --data_dir "$work/images" --amp fp32 \
            --pretrained "$work/quiet$count/last.safetensors" --output_dir "$work/eval$count" \
            --device cpu --per_batch_size 5
    done
    wait_for_hosts
    grep -q '"total": 51' "$work/eval$count/eval.json" || fail "eval$count did not count 51 images"
    echo "$count hosts: evaluated 51 images, each once"
done
