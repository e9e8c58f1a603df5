# shellcheck shell=sh
# What an installer of constructor's runs last, when it has linked its packages into PREFIX. It sees PREFIX, INSTALLER_NAME
# and INSTALLER_VER: https://conda.github.io/constructor/construct-yaml/#post_install
#
# Behind header.sh, which does the rest itself, BAREHUB_HOOKS is no.

main() {
    set -eu
    umask 022
    tidy
    [ "${BAREHUB_HOOKS:-yes}" = yes ] || exit 0
    vouch
    take_lock_over
    run_hooks
}

# What serves the installing only, and what tells of the machine where the installer was made. The caller's umask decided
# over modes.
tidy() {
    rm -rf "$PREFIX/_conda" "$PREFIX/micromamba" "$PREFIX/_internal" "$PREFIX/.condarc"
    rm -f "$PREFIX/.installer.info" "$PREFIX/.nonadmin" "$PREFIX/conda-meta/initial-state.explicit.txt"
    history=$PREFIX/conda-meta/history
    sed 's/^# cmd: .*/# cmd: constructor/' "$history" >"$history.new"
    mv "$history.new" "$history"
    # conda-standalone's pip plug-in may put this there, which would keep pip out of the release.
    grep -q EXTERNALLY-MANAGED "$PREFIX"/conda-meta/*.json || rm -f "$PREFIX"/lib/python3*/EXTERNALLY-MANAGED
    # conda compiles those noarch packages alone that say so in info/link.json.
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

# From the process that pre_install.sh has left.
take_lock_over() {
    base=${PREFIX%/releases/*}
    exec 9<"$base"
    kill "$(cat "$PREFIX/pkgs/lock-holder")" 2>/dev/null || :
    flock -w 10 9 || {
        printf 'error: another installer is at work in %s\n  fix: wait, then: %s\n' "$base" \
            "$PREFIX/bin/barehub install --base=$base --release=$INSTALLER_VER --name=$INSTALLER_NAME" >&2
        exit 1
    }
}

# In an environment that holds nothing of the caller's; an installation keeps the name that it has.
run_hooks() {
    recorded=$(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$base/install.json" 2>/dev/null) || :
    set -- --base="$base" --release="$INSTALLER_VER" --name="${recorded:-$INSTALLER_NAME}"
    active=$(readlink "$base/hub" 2>/dev/null) || active=
    if [ "${active##*/}" = "$INSTALLER_VER" ]; then set -- "$@" --restart; fi
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/ \
        "$PREFIX/bin/python" -I -m barehub install "$@" </dev/null
}

main
exit
