#!/bin/sh
# sh scripts/run_distribute_eval.sh [--wait | --stop] DEVICE_NUM RANK_TABLE_FILE DATASET CKPT_PATH
exec sh "$(dirname "$0")/launch.sh" eval "$@"
