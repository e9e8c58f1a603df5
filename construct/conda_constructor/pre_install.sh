# shellcheck shell=sh
# What an installer of constructor's runs when it has unpacked its packages into PREFIX and linked none of them yet. It sees
# PREFIX, INSTALLER_NAME and INSTALLER_VER: https://conda.github.io/constructor/construct-yaml/#pre_install
#
# Behind header.sh, which has checked all this itself, BAREHUB_HOOKS is no.

main() {
    set -eu
    [ "${BAREHUB_HOOKS:-yes}" = yes ] || exit 0
    umask 022
    base=${PREFIX%/releases/*}
    check_prefix
    check_base
    hold_lock
    clear_place
    # The installer has just made them, with the caller's umask; the proxy's account has to get through.
    if [ ! -e "$base/install.json" ]; then chmod a+rx "$base" "$base/releases"; fi
}

check_prefix() {
    example="-p /opt/$INSTALLER_NAME/releases/$INSTALLER_VER"
    case $PREFIX in
        /releases/* | *[!A-Za-z0-9/._+-]*) refuse "$PREFIX cannot hold a release" "use A-Z a-z 0-9 / . _ + - only: $example" ;;
        */releases/"$INSTALLER_VER") ;;
        *) refuse "this release cannot be in $PREFIX" "name BASE/releases/$INSTALLER_VER, like $example" ;;
    esac
    # An environment's files hold their path, and a link on the way may be changed one day.
    real=$(cd -P "$PREFIX" && pwd)
    [ "$real" = "$PREFIX" ] || refuse "there is a link on the way to $PREFIX" "name the real place: -p $real"
    if [ -d /run/systemd/system ] && [ "$(id -u)" -eq 0 ]; then
        case $base/ in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
            refuse "$base is where services cannot see it" "choose another one: $example" ;;
        esac
    fi
    command -v flock >/dev/null || refuse "'flock' is needed but not installed" "install util-linux"
}

check_base() {
    others=$(find "$base" -mindepth 1 -maxdepth 1 ! -name releases ! -name .staging ! -name lost+found)
    if [ -n "$others" ] && ! grep -q '"proxy_user"' "$base/install.json" 2>/dev/null; then
        refuse "$base is not empty and not a barehub" "choose another one with -p"
    fi
    active=$(readlink "$base/hub" 2>/dev/null) || active=
    active=${active##*/}
    for one in ${active:+"$base/releases/$active"} "$PREFIX"; do
        called=$(sed -n 's/^ "name": "\(.*\)",$/\1/p' "$one/share/barehub/release.json" 2>/dev/null) || :
        [ "${called:-$INSTALLER_NAME}" = "$INSTALLER_NAME" ] ||
            refuse "$one is a release of $called, not of $INSTALLER_NAME" "choose another place with -p"
    done
    newest=$(printf '%s\n' "${active:-$INSTALLER_VER}" "$INSTALLER_VER" | sort -V | tail -n 1)
    [ "$newest" = "$INSTALLER_VER" ] ||
        refuse "$base runs $active, which is newer than $INSTALLER_VER" "to go back: $base/hub/bin/barehub rollback"
}

# Another installer clears away what it finds without a receipt, so BASE is locked from here to the end of the installer,
# the parent process. The lock is on the directory, as header.sh's; post_install.sh takes it over.
hold_lock() {
    exec 9<"$base"
    flock -n 9 || refuse "another installer is at work in $base" "wait until it has finished"
    (while kill -0 "$PPID" 2>/dev/null; do sleep 1 9<&-; done) </dev/null >/dev/null 2>&1 &
    echo "$!" >"$PREFIX/pkgs/lock-holder"
}

# With -f or -u there may be a release, or what is left of one: conda would take what it has a record of for whole.
clear_place() {
    others | while read -r name; do rm -rf "${PREFIX:?}/$name"; done
    rm -f "$PREFIX"/conda-meta/*.json
}

# What is in PREFIX beside that which constructor has unpacked.
others() {
    find "$PREFIX" -mindepth 1 -maxdepth 1 ! -name pkgs ! -name conda-meta ! -name _conda ! -name micromamba \
        ! -name _internal ! -name install_tmp ! -name .installer.info ! -name .nonadmin ! -name postconda.tar.bz2 |
        sed 's|.*/||'
}

# Say why not, and leave nothing behind of what was unpacked, unless there is more in PREFIX than that.
refuse() { # what is wrong, what to do
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    more=$(others)
    records=$(find "$PREFIX/conda-meta" -name '*.json' -print -quit 2>/dev/null) || :
    if [ -z "$more$records" ]; then
        rm -rf "$PREFIX"
        parent=${PREFIX%/*}
        case $parent in */releases) rmdir "$parent" "${parent%/*}" 2>/dev/null || : ;; esac
    fi
    exit 1
}

main
exit
