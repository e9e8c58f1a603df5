#!/bin/bash -l
# A server of JupyterHub, submitted by barehub. A template of Jinja's; comments in it stay.
#SBATCH --job-name={{ job_name }}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition={{ partition }}
#SBATCH --cpus-per-task={{ cores }}
#SBATCH --mem={{ memory }}M
#SBATCH --time={{ minutes }}
{%- if gpus %}
#SBATCH --gres=gpu:{{ gpus }}
{%- endif %}
{%- for name, value in (("account", account), ("qos", qos), ("reservation", reservation)) if value %}
#SBATCH --{{ name }}={{ value }}
{%- endfor %}
{%- if options %}
#SBATCH {{ options }}
{%- endif %}
# The job has its user's login environment and what is exported below; nothing of the hub's, and nothing of sudo's,
# whose NOEXEC is an LD_PRELOAD with which no job could run anything.
#SBATCH --export=NONE
# Started again on another node it would be another server, at another port.
#SBATCH --no-requeue
# Slurm would use /tmp instead of a home that is not there, or fail without a word; see below.
#SBATCH --chdir=/
#SBATCH --output=/dev/null

give_up() {
    scontrol update JobId="$SLURM_JOB_ID" Comment="$1"
    exit 1
}

cd "$HOME" 2>/dev/null || give_up "your home directory $HOME is not there on the node $SLURMD_NODENAME"
logs="$HOME/.jupyterhub"
mkdir -p "$logs" && exec >"$logs/job-$SLURM_JOB_ID.log" 2>&1 ||
    give_up "your home directory $HOME cannot be written to on the node $SLURMD_NODENAME"
find "$logs" -name 'job-*.log' -mtime +30 -delete

# It belongs to a login session that has ended.
unset XDG_RUNTIME_DIR
# What srun starts, from a terminal in JupyterLab for instance, is to have the environment that it is started in.
export SLURM_EXPORT_ENV=ALL
export PATH={{ users_environment }}/bin:"$PATH"
{%- for name, value in env %}
export {{ name }}={{ value }}
{%- endfor %}
{{ prologue }}

python={{ users_environment }}/bin/python
[ -x "$python" ] || give_up "there is no $python on the node $SLURMD_NODENAME"
launch=$(cat <<'END OF LAUNCH.PY'
{{ launch }}
END OF LAUNCH.PY
)
# Not from the current directory: a user's file there may be named like a module.
exec "$python" -c "import sys; sys.path[:] = filter(None, sys.path); exec(sys.argv.pop(1))" "$launch" {{ cmd }}
