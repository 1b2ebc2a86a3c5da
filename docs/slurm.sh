#!/bin/bash
# A study on the nodes of a Slurm job: sbatch docs/slurm.sh, from ~/kdstudy, after `ray get-auth-token --generate`.
# docs/cluster.md explains it. Change the #SBATCH lines and the last line; `sbatch` again continues the study.
#SBATCH --job-name=kdstudy --nodes=4 --ntasks-per-node=1 --exclusive --gpus-per-node=4
#SBATCH --time=08:00:00 --signal=B:TERM@180
set -e
source ~/kdstudy-env/bin/activate
cd ~/kdstudy
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
here=$(hostname)
head=$(getent ahostsv4 "$here" | awk 'NR == 1 { print $1 }')
others=$((SLURM_JOB_NUM_NODES - 1))

# the head, on this node, which trains as well
srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --nodelist="$here" \
    ray start --head --node-ip-address="$head" --port=6379 --block &
steps=($!)
alive() { kill -0 "${steps[@]}" || { echo "ray start has ended" >&2; exit 1; }; }
until (: > "/dev/tcp/$head/6379") 2> /dev/null; do alive; sleep 1; done
# a worker on each other node
if [ "$others" -gt 0 ]; then
    srun --overlap --nodes="$others" --ntasks="$others" --cpus-per-task="$SLURM_CPUS_ON_NODE" --exclude="$here" \
        ray start --address="$head:6379" --block &
    steps+=($!)
fi
joined() { ray list nodes --address="$head:6379" --filter state=ALIVE --limit=10000 --format=yaml | grep -c node_ip; }
until [ "$(joined)" = "$SLURM_JOB_NUM_NODES" ]; do alive; sleep 5; done
# in place of this shell, so that Slurm's signal reaches it
exec python -m study.run spaces/lp_cifar.py --address "$head:6379" --storage-path ~/runs
