# shellcheck shell=sh disable=SC2153  # constructor sets PREFIX
# What an installer that constructor made runs last, when it has linked its packages into PREFIX. It sees PREFIX,
# INSTALLER_NAME and INSTALLER_VER: https://conda.github.io/constructor/construct-yaml/#post_install
# and BAREHUB_FUNCTIONS, the text of preflight.sh, ports.sh and steps.sh, from construct.yaml.
#
# Behind header.sh, which does the rest itself, BAREHUB_HOOKS is no.

main() {
    set -eu
    umask 022
    tidy
    [ "${BAREHUB_HOOKS:-yes}" = yes ] || exit 0
    vouch
    take_lock_over
    start_hooks
}

# Remove what only the installation needs, and what tells of the machine where the installer was made. The modes came
# from the caller's umask.
tidy() {
    rm -rf "$PREFIX/_conda" "$PREFIX/micromamba" "$PREFIX/_internal" "$PREFIX/.condarc"
    rm -f "$PREFIX/.installer.info" "$PREFIX/.nonadmin" "$PREFIX/conda-meta/initial-state.explicit.txt"
    history=$PREFIX/conda-meta/history
    sed 's/^# cmd: .*/# cmd: constructor/' "$history" >"$history.new"
    mv "$history.new" "$history"
    # conda-standalone's pip plug-in may put this there, which would keep pip out of the release.
    grep -q EXTERNALLY-MANAGED "$PREFIX"/conda-meta/*.json || rm -f "$PREFIX"/lib/python3*/EXTERNALLY-MANAGED
    # conda compiles only those noarch packages that say so in info/link.json.
    "$PREFIX/bin/python" -I -m compileall -q "$PREFIX"/lib/python3* || :
    chmod -R a+rX,go-w "$PREFIX"
}

# A power cut must not leave a receipt without the files it vouches for.
vouch() {
    receipt=$PREFIX/share/barehub/release.json
    mv "$receipt" "$receipt.new"
    sync -f "$PREFIX" 2>/dev/null || sync
    mv "$receipt.new" "$receipt"
}

# pre_install.sh has left a process that holds it.
take_lock_over() {
    base=${PREFIX%/releases/*}
    exec 9>>"$base/.lock"
    kill "$(cat "$PREFIX/pkgs/lock-holder")" 2>/dev/null || :
    flock -w 10 9 || {
        printf 'error: another installer is at work in %s\n  fix: wait, then: %s\n' "$base" \
            "$PREFIX/bin/barehub install --base=$base --release=$INSTALLER_VER --name=$INSTALLER_NAME" >&2
        exit 1
    }
}

# An installation keeps the name that it has.
# shellcheck disable=SC2034  # hand_over reads the variables
start_hooks() {
    eval "$BAREHUB_FUNCTIONS"
    recorded=$(sed -n 's/.*"name": "\([^"]*\)".*/\1/p' "$base/install.json" 2>/dev/null) || :
    active=$(readlink "$base/hub" 2>/dev/null) || active=
    active=${active##*/} prefix=$PREFIX release=$INSTALLER_VER unit=${recorded:-$INSTALLER_NAME}
    written=yes kept=no debug=no
    hand_over </dev/null
}

main
exit
