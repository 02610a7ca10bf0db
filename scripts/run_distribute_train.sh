#!/bin/sh
# sh scripts/run_distribute_train.sh [--wait | --stop] DEVICE_NUM RANK_TABLE_FILE DATASET [PRETRAINED_CKPT]
exec sh "$(dirname "$0")/launch.sh" train "$@"
