#!/bin/sh
# usage: fill CHANNEL PREFIX STAGE: fill PREFIX with the locked packages of the conda channel CHANNEL, offline.
# This one hands the work to a runtime made by conda-ship, which checks each package's sha256 against its own lock.
set -eu
channel=$1 prefix=$2 stage=$3 runtime=''

# The runtime has a lock beside the prefix, and must end with this script, or it would go on writing to what is being
# removed.
end() {
    code=${1:-$?}
    trap '' TERM # before anything else: a second signal must not cut this short
    trap - EXIT
    if [ -n "$runtime" ]; then
        kill "$runtime" 2>/dev/null || :
        # Not one `wait`: bash returns from it for a signal that came before the trap above.
        while kill -0 "$runtime" 2>/dev/null; do wait "$runtime" || :; done
    fi
    rm -f "${prefix%/*}/.${prefix##*/}.conda-ship.lock"
    exit "$code"
}
trap end EXIT
trap 'end 143' TERM # not `exit`: that would end an `end` that has just begun

# It looks for package files in one directory.
mkdir "$stage/bundle"
find "$channel" \( -name '*.conda' -o -name '*.tar.bz2' \) -exec ln {} "$stage/bundle" \;
here=$(cd -- "$(dirname -- "$0")" && pwd)
# Then it runs `python -m compileall`, which opens every file to see whether it is compiled: a third of the time, since
# nearly all are. `-m` looks in the current directory first. This one looks at names, and has Python's do the rest.
mkdir "$stage/first"
cat >"$stage/first/compileall.py" <<'END'
import os, sys

del sys.path[0]
import compileall

lib, tag, left = sys.argv[-1], sys.implementation.cache_tag, []
for directory, names, files in os.walk(lib):
    done = os.listdir(f"{directory}/__pycache__") if "__pycache__" in names else []
    left += [f"{directory}/{name}" for name in files if name[-3:] == ".py" and f"{name[:-3]}.{tag}.pyc" not in done]
if len(left) > 500:
    compileall.compile_dir(lib, quiet=2, workers=0)
else:
    for path in left:
        compileall.compile_file(path, quiet=2)
END
cd "$stage/first"
# Its first start fills the prefix, then runs the environment's python with these arguments. A certificate, since it
# panics on a machine without ca-certificates ("No CA certificates were loaded"), offline or not.
BAREHUB_BUNDLE=$stage/bundle BAREHUB_OFFLINE=1 CONDA_SHIP_PREFIX=$prefix \
    RATTLER_CACHE_DIR=${RATTLER_CACHE_DIR:-$stage/cache} SSL_CERT_FILE=$here/authority.pem "$here/runtime" -I -c '' &
runtime=$!
wait "$runtime"
runtime=''
