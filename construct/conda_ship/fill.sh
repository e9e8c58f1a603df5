#!/bin/sh
# usage: fill CHANNEL PREFIX STAGE: fill PREFIX with the locked packages of the conda channel CHANNEL, offline.
# This one hands the work to a runtime made by conda-ship, which checks each package's sha256 against its own lock.
set -eu
channel=$1 prefix=$2 stage=$3 runtime=''

# The runtime has a lock beside the prefix, and must end with this script, or it would go on writing to what is being
# removed.
end() {
    code=$?
    trap - EXIT
    trap '' TERM # a second one would leave the runtime alone
    if [ -n "$runtime" ]; then kill "$runtime" 2>/dev/null || :; fi
    wait
    rm -f "${prefix%/*}/.${prefix##*/}.conda-ship.lock"
    exit "$code"
}
trap end EXIT
trap 'exit 143' TERM

# It looks for package files in one directory.
mkdir "$stage/bundle"
find "$channel" \( -name '*.conda' -o -name '*.tar.bz2' \) -exec ln {} "$stage/bundle" \;
# Its first start fills the prefix, then runs the environment's python with these arguments.
BAREHUB_BUNDLE=$stage/bundle BAREHUB_OFFLINE=1 RATTLER_CACHE_DIR=$stage/cache CONDA_SHIP_PREFIX=$prefix \
    "$(dirname -- "$0")/runtime" -I -c '' &
runtime=$!
wait "$runtime"
runtime=''
