#!/bin/sh
# usage: fill CHANNEL PREFIX STAGE: fill PREFIX with the locked packages of the conda channel CHANNEL, offline.
# This one joins the pieces of an installer that constructor made, which was cut where the channel has the same bytes,
# and runs it.
set -eu
channel=$1 prefix=$2 stage=$3 group=''
here=$(dirname -- "$0")

# Its workers must end with this script, or they would go on writing to what is being removed.
end() {
    code=${1:-$?}
    trap '' TERM # before anything else: a second signal must not cut this short
    trap - EXIT
    if [ -n "$group" ]; then
        # The caller removes what they leave. dash needs -s here; there is no group before setsid has made one.
        kill -s KILL -- "-$group" 2>/dev/null || kill -s KILL "$group" 2>/dev/null || :
        # Not one `wait`: bash returns from it for a signal that came before the trap above.
        while kill -0 "$group" 2>/dev/null; do wait "$group" || :; done
    fi
    exit "$code"
}
trap end EXIT
trap 'end 143' TERM # not `exit`: that would end an `end` that has just begun

# `glue N`: the next N bytes of the file of that name; `package PATH`: that file of the channel.
while read -r what which; do
    case $what in
        glue) dd bs="$which" count=1 <&3 2>/dev/null ;;
        package) cat "$channel/$which" ;;
    esac
done <"$here/pieces" 3<"$here/glue" >"$stage/constructor.sh"
(cd "$stage" && sha256sum --quiet -c) <"$here/sha256"

# It makes the prefix; a session of its own makes one group of all its processes.
BAREHUB_HOOKS=no HOME=$stage TMPDIR=$stage setsid sh "$stage/constructor.sh" -b -p "$prefix" &
group=$!
wait "$group"
group=''
rm "$stage/constructor.sh"
