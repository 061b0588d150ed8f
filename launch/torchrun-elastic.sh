#!/usr/bin/env bash
# Machines that may come and go, by torchrun. The same command on each of them, the first one named in RDZV_ENDPOINT:
#   RDZV_ENDPOINT=node1:29500 NNODES=1:4 launch/torchrun-elastic.sh --out /shared/run ...
# All arguments are train.py's. It trains as soon as the fewest machines are there. When one is lost, the others start
# again without it, from the newest checkpoint in --out, a folder that all share (train.resume auto, the default).
# A fixed train.batch_size and a train.micro_batch_size that leaves each of the most processes one keep the run the same
# whatever the number of processes; bit for bit with --train.determinism elastic. Leave train.num_processes out, here and
# in the config.
set -euo pipefail

endpoint="${RDZV_ENDPOINT:?the first machine and a free port of it, such as node1:29500; it must outlive the run}"
nodes="${NNODES:-1:2}"                     # the fewest and the most machines
per_node="${NPROC_PER_NODE:-gpu}"          # processes on each; on CPUs a number, and ACCELERATE_USE_CPU=true
max_restarts="${MAX_RESTARTS:-10}"         # for lost and for failed processes; a machine that joins counts as none
run_id="${RDZV_ID:-fastddpm}"              # the same on all machines
rdzv_conf="${RDZV_CONF:-join_timeout=600}" # seconds to wait for the fewest machines; key=value,key=value
local_addr="${LOCAL_ADDR:-}"               # this machine's name or address, if the others cannot resolve its own name
script="${SCRIPT:-$(dirname "${BASH_SOURCE[0]}")/../train.py}"

for word in "$@"; do
    if [[ "$word" == --train.num_processes* ]]; then
        echo "torchrun-elastic.sh: train.num_processes fixes a number that is to vary here; leave it out" >&2
        exit 2
    fi
done

# Each process takes its share of the cores itself; torchrun would set the same and warn of it.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# A process that is asked to stop gets this many seconds for its checkpoint before it is killed.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}"

# Each start has a store of its own: in the shared one gloo finds the addresses of the start before.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

exec torchrun \
    --nnodes "$nodes" \
    --nproc-per-node "$per_node" \
    --max-restarts "$max_restarts" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$endpoint" \
    --rdzv-id "$run_id" \
    --rdzv-conf "$rdzv_conf" \
    ${local_addr:+--local-addr "$local_addr"} \
    "$script" "$@"
