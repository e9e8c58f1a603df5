# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# What an installer will do, and does once all checks have passed. Functions only: header.sh reads this file from its
# payload; conda_constructor/post_install.sh, which reads it from a variable that constructor's installer sets, calls
# hand_over alone. They need the variables of preflight.sh, and debug and written: yes or no.

print_changes() {
    if [ "$opt_rehearse" = yes ]; then
        say "this rehearses the upgrade of $base to $release, and leaves nothing"
        return
    fi
    say "this installs $distribution $release:"
    if [ "$complete" = no ] || [ "$repair" = yes ]; then say "  write    $prefix ($((installed_kb / 1024)) MB)"; fi
    [ -e "$base/.lock" ] || say "  write    $base/.lock"
    if [ "$keep" = yes ]; then say "  write    $base/channel"; fi
    if [ "$hooks" = no ]; then return; fi
    for path in state state/hub state/rules state/proxy state/acme state/environments jupyterhub_config.d systemd \
        install.json \
        "systemd/$unit.target" "systemd/$unit-hub.service" "systemd/$unit-proxy.service" \
        "systemd/$unit-certificates.timer" "systemd/$unit-certificates.service"; do
        [ -e "$base/$path" ] || say "  write    $base/$path"
    done
    if [ -n "$opt_restore" ]; then say "  restore  state and configuration from $opt_restore"; fi
    if [ -n "$opt_bind_url" ]; then say "  write    $base/jupyterhub_config.d/10-install.py"; fi
    if [ -n "$active" ] && [ "$active" != "$release" ]; then
        say "  write    $base/state/hub/backups/jupyterhub-$active.sqlite, or .dump of PostgreSQL" \
            "  migrate  the database in $base/state/hub if its schema is older" \
            "  remove   releases and backups except the newest ${opt_keep:-2}"
    fi
    if [ "$active" != "$release" ]; then say "  switch   $base/hub from ${active:-nothing} to $release"; fi
    if ! systemd_runs; then say "  start    nothing: this account has no systemd"; return; fi
    links=$(units_directory) wanted=default.target.wants
    if [ "$(id -u)" -eq 0 ]; then wanted=multi-user.target.wants; fi
    if [ "$(id -u)" -eq 0 ] && [ -z "$recorded$opt_proxy_user" ] && ! id "$unit-proxy" >/dev/null 2>&1; then
        say "  account  $unit-proxy, for the proxy"
    fi
    for suffix in .target -hub.service -proxy.service -certificates.timer -certificates.service; do
        [ -e "$links/$unit$suffix" ] || say "  link     $links/$unit$suffix"
    done
    [ -e "$links/$wanted/$unit.target" ] || say "  link     $links/$wanted/$unit.target"
    if [ "$opt_no_start" = yes ]; then return; fi
    if [ -n "$active" ]; then say "  restart  what has changed of $unit.target"; else say "  start    $unit.target"; fi
}

# Whoever holds the lock may remove .staging and releases without a receipt: interrupted runs left them.
lock_base() {
    missing=$base
    while [ ! -e "$missing" ]; do created="$created $missing"; missing=${missing%/*}; missing=${missing:-/}; done
    run mkdir -p "$base"
    take_lock
    stage=$base/.staging
    # An interrupted repair has moved the release aside.
    for aside in "$stage"/replaced/*; do
        if [ -e "$aside/share/barehub/release.json" ]; then
            run rm -rf "$base/releases/${aside##*/}"
            run mv "$aside" "$base/releases/"
        fi
    done
    remove "$stage"
    run mkdir -m 700 "$stage"
    : >"$stage/barehub" # tells whose it is
    for left in "$base"/releases/[0-9][0-9][0-9][0-9].[0-9][0-9].[0-9][0-9]*; do
        [ -e "$left/share/barehub/release.json" ] || remove "$left"
    done
    check_release # another installer may have finished meanwhile
}

take_lock() {
    open_lock
    flock -n 9 || die 6 "another installer is at work in $base" "wait until it has finished"
    # Hub, proxy and users run what is in there.
    if [ "$(id -u)" -eq 0 ]; then run chmod a+rx "$base"; fi
}

# Who has made BASE, and has had the lock, removes both.
drop_lock() {
    if [ -n "$created" ] && [ -n "$stage" ]; then rm -f "$base/.lock"; fi
}

# The lock ends with the last process that holds it, so it cannot be left behind. It is a file that nobody else can
# open: whoever can open a file can lock it. Installers before this one lock BASE itself, which is done for them.
open_lock() {
    exec 8<"$base"
    flock -n 8 || :
    (umask 077 && : >>"$base/.lock")
    exec 9>>"$base/.lock" # for writing, which NFS wants
}

install_release() {
    say "unpacking"
    unpack
    run mkdir -p "$base/releases"
    if [ -e "$prefix" ]; then
        by_hand=$("$prefix/bin/python" -I -m barehub.lifecycle.added_packages 2>/dev/null) || by_hand=
        [ -z "$by_hand" ] || say "packages that were added by hand, to be added again: $by_hand"
        run mkdir "$stage/replaced"
        run mv "$prefix" "$stage/replaced/"
    fi
    say "installing release $release into $prefix"
    set -- sh "$stage/engine/fill" "$stage/channel" "$prefix" "$stage"
    if [ "$debug" = yes ]; then shift; set -- sh -x "$@"; fi
    trace "$@"
    cache=$stage/cache
    choose_cache
    # In the background, since a shell runs its traps only between commands.
    become RATTLER_CACHE_DIR="$cache" HOME="$stage" TMPDIR="$stage" TMP="$stage" TEMP="$stage" "$@" \
        >"$stage/engine.log" 2>&1 &
    engine=$!
    wait "$engine" || { code=$?; engine=''; engine_failed "$code"; }
    engine=''
    if [ -n "$log" ]; then cat "$stage/engine.log" >>"$log"; fi
    keep_units
    # Whatever the engine's modes are: the hub may run as any account, and only root may change a release.
    run chmod -R go+rX,go-w "$prefix"
    finish_prefix
    # A power cut must not leave a receipt without the files it vouches for.
    sync -f "$prefix" 2>/dev/null || sync
    run mv "$stage/release.json" "$prefix/share/barehub/release.json"
    sync -f "$prefix" 2>/dev/null || sync
    written=yes
}

# systemd's links lead to units in the prefix. The hooks write them there, but may be skipped, or fail.
keep_units() {
    for place in "$base"/systemd/*; do
        kept_unit=$stage/replaced/$release/systemd/${place##*/}
        if [ ! -f "$kept_unit" ]; then continue; fi
        run mkdir -p "$prefix/systemd"
        run cp "$kept_unit" "$prefix/systemd/"
    done
}

remove() { run rm -rf "$1"; }

choose_cache() { :; }

finish_prefix() { run mv "$stage/manifest.gz" "$prefix/share/barehub/manifest.gz"; }

unpack() {
    trace sh -c "tail -c +$payload_start $(quote "$this_file") | tar -xf - -C $stage"
    payload | tar -xf - -C "$stage" || die 4 "unpacking to $stage failed" "see the message above; is the disk full?"
}

keep_channel() {
    [ -d "$stage/channel" ] || unpack
    if [ "$(sums_of "$stage/channel")" = "$(sums_of "$base/channel")" ]; then return; fi
    run rm -rf "$base/channel"
    run mv "$stage/channel" "$base/channel"
    kept=yes
}

# diff and cmp are not everywhere.
sums_of() (cd "$1" 2>/dev/null && find . -type f -exec sha256sum {} + | sort)

engine_failed() {
    if [ -n "$log" ]; then cat "$stage/engine.log" >>"$log"; fi
    tail -n 5 "$stage/engine.log" >&2
    if grep -q 'No space left' "$stage/engine.log"; then die 4 "the disk is full" "make room, then run this again"; fi
    die 1 "filling $prefix failed with status $1" "see the messages above; with --debug, all of them are kept"
}

# What was signed, for `barehub verify`: it lies beside this file, or was in the release that has been repaired. A link
# that somebody else has put there may lead to what root alone can read, and everybody can read what is kept.
keep_signature() {
    about=$prefix/share/barehub
    receipt=$(sha256sum "$about/release.json" | cut -d ' ' -f 1)
    for place in "${this_file%/*}" "$stage/replaced/$release/share/barehub"; do
        if ! grep -qs "^$receipt " "$place/SHA256SUMS"; then continue; fi
        for name in SHA256SUMS SHA256SUMS.sig SHA256SUMS.asc; do
            if [ ! -f "$place/$name" ] || same "$place/$name" "$about/$name"; then continue; fi
            cat "$place/$name" >"$stage/$name"
            grep -q -e "^$receipt " -e '^-----BEGIN [A-Z]* SIGNATURE-----' "$stage/$name" || continue
            run mv "$stage/$name" "$about/$name"
        done
        return
    done
}

same() { [ -f "$2" ] && [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; }

finish() {
    keep_signature
    if [ "$hooks" = no ]; then
        hooks_command="$prefix/bin/barehub install --base=$base --release=$release --name=$unit$forwarded"
        say "skipped the post-install hooks; to run them: $hooks_command"
        say_changed ""
        exit 0
    fi
    run rm -rf "$stage"
    [ -z "$log" ] || set -- "$@" --log="$log"
    if [ "$opt_rehearse" = yes ]; then rehearse "$@"; fi
    trap - EXIT
    hand_over "$@"
}

# Tell people and programs, in a last line, what has changed; after the hooks, they do (barehub.lifecycle.changes).
say_changed() {
    changed=$1
    if [ "$written" = yes ]; then changed="$changed, files"; fi
    if [ "$kept" = yes ]; then changed="$changed, channel"; fi
    if [ -n "$changed" ]; then say "changed: ${changed#, }"; else say "nothing changed"; fi
}

# A rehearsal leaves what a run leaves that fails: clean_up ends the hooks, and removes the release if it is new.
rehearse() {
    written=no
    hand_over "$@" &
    engine=$! code=0
    wait "$engine" || code=$?
    engine=''
    exit "$code"
}

# A run that fails leaves nothing but what was there before it.
# shellcheck disable=SC2317,SC2329  # a trap calls it
clean_up() {
    code=${1:-$?}
    trap '' HUP INT TERM # before anything else: a second signal must not cut this short
    trap - EXIT
    if [ -n "${engine:-}" ]; then
        kill "$engine" 2>/dev/null || :
        # Not one `wait`: bash returns from it for a signal that came before the trap above.
        while kill -0 "$engine" 2>/dev/null; do wait "$engine" || :; done
    fi
    if [ -n "$stage" ] && [ "$written" = no ] && [ "$complete" = no ]; then rm -rf "$prefix"; fi
    if [ -n "$stage" ] && [ -e "$stage/replaced" ] && [ "$written" = no ]; then
        rm -rf "$prefix"
        mv "$stage/replaced/$release" "$prefix"
    fi
    if [ "$code" -ne 0 ] && [ "$debug" = yes ] && [ -d "$stage" ]; then
        printf 'kept for --debug: %s; the log of the engine is %s\n' "$stage" "$stage/engine.log" >&2
    elif [ -n "$stage" ]; then
        remove "$stage" || : # the lock has to go in any case
    fi
    if [ "$code" -ne 0 ] && [ -n "$stage" ]; then rmdir "$base/releases" 2>/dev/null || :; fi
    drop_lock
    for directory in $created; do rmdir "$directory" 2>/dev/null || :; done
    case $code in 129 | 130 | 143) printf 'error: interrupted\n  fix: run this again\n' >&2 ;; esac
    exit "$code"
}

# Become the hooks of the release in $prefix, with these options; $written says whether its files were replaced.
hand_over() {
    [ -n "$opt_name" ] || set -- --name="$unit" "$@"
    [ "$written $active" != "yes $release" ] || set -- "$@" --restart
    [ "$kept" = no ] || set -- "$@" --kept-channel
    [ "$debug" = no ] || set -- "$@" --debug
    become HOME=/ "$prefix/bin/python" -I -m barehub install --base="$base" --release="$release" "$@"
}

# Become a command that sees nothing of the caller's CONDA_*, PYTHON*, PIP_*, TMPDIR and so on.
become() {
    set -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
    trace "$@"
    exec "$@"
}

# A command that changes something.
run() {
    trace "$@"
    "$@"
}

# With --debug, print a command as one can paste it.
trace() {
    if [ "$debug" = no ]; then return; fi
    line=+
    for word; do
        case $word in
            '' | *[!A-Za-z0-9/._+=:,@%-]*) line="$line $(quote "$word")" ;;
            *) line="$line $word" ;;
        esac
    done
    printf '%s\n' "$line" >&2
}
