#!/bin/sh
# @NAME@ @RELEASE@ for Linux @MACHINE@: a JupyterHub with its proxy and idle culler, run by systemd. No network is used.
#
# usage: sh @FILE@ [options]
#
#   -b            batch: ask nothing
#   -p BASE       where to install, default @BASE@
#   -u            update the installation in BASE to this release
#   -f            repair: put this release's files in place again
#   -s            fill the release's prefix only, skip the post-install hooks
#   -k            keep the package archives, as a conda channel in BASE/channel
#   -h, --help    this text
#   --name NAME         stem of the systemd units, default @NAME@
#   --hub-user USER     account the hub runs as, default root
#   --proxy-user USER   account the proxy runs as, default www-data, else one made here
#   --bind-url URL      where people reach the hub, default http://:8000; https://hub.example.org needs one of:
#   --acme-email ADDRESS         a certificate from Let's Encrypt,
#   --acme-ca-server URL           or another ACME server, by its directory URL,
#   --acme-ca-bundle FILE          known by the certificate authorities in a PEM file
#   --tls-cert FILE --tls-key FILE  a certificate with its chain, and its key
#   --from NAME         with -u: BASE holds NAME, another distribution of barehub; this one is to take its place
#   --no-start          install everything, start nothing
#   --wait SECONDS      update: wait so long for servers that are just starting, default 60
#   --keep N            update: keep so many releases, with the new one, default 2
#   --no-db-backup      update: the database, another one than SQLite, has been backed up
#   --require-same-packages  update: refuse to lose packages that were added by hand
#   --log FILE          append what happens to FILE too
#   --dry-run           print every change that would be made, make none
#
#   --verify            check this file's integrity, install nothing
#   --list              print the packages in it, install nothing
#   --extract DIR       add its packages to DIR, a conda channel, which may be new; install nothing
#
# exit status: 0 done, 1 error, 2 usage or refused, 3 platform, 4 space, 5 integrity, 6 BASE in use or not ours,
#   7 a hook failed, 8 port taken, 129, 130 and 143 interrupted
#
# What follows this script's first @HEADER_BYTES@ bytes is a plain tar: tail -c +@PAYLOAD_START@ FILE | tar -tv

main() {
    set -eu
    umask 022
    # The system's tools, with the system's libraries, whatever modules or environments the caller has loaded.
    unset LD_LIBRARY_PATH LD_PRELOAD LD_AUDIT
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH LC_ALL=C

    file_bytes=@FILE_BYTES@ needed_kb=@NEEDED_KB@ needed_inodes=@NEEDED_INODES@ installed_kb=@INSTALLED_KB@ glibc_minor=@GLIBC_MINOR@
    base=@BASE@ name='' from='' hub_user='' proxy_user='' bind_url='' tls_cert='' tls_key='' wait='' keep_releases='' log='' action=install target=''
    acme_email='' acme_ca_server='' acme_ca_bundle=''
    back_up=yes same_packages=no batch=no update=no repair=no hooks=yes keep=no start=yes dry_run=no stage='' created=''
    parse_args "$@"
    case $0 in */*) this=$0 ;; *) this=./$0 ;; esac
    [ -r "$this" ] || die 1 "cannot read $this" "run it as a file: sh ./@FILE@"

    check_integrity
    case $action in
        verify) say "$this is intact: sha256 of the payload @PAYLOAD_SHA256@"; exit 0 ;;
        list) payload | tar -xOf - packages.txt; exit 0 ;;
        extract) extract_to "$target"; exit 0 ;;
    esac

    check_platform
    if [ "$batch" = no ]; then ask_base; fi
    check_options
    check_base
    check_release
    check_space
    check_ports
    if [ "$dry_run" = yes ]; then print_changes; exit 0; fi
    if [ "$batch" = no ]; then ask_consent; fi

    if [ -n "$log" ] && ! (: >>"$log") 2>/dev/null; then
        unwritable=$log log=''
        die 1 "cannot write $unwritable" "name a file that can be written with --log"
    fi
    trap clean_up EXIT
    trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
    lock_base
    if [ "$complete" = no ] || [ "$repair" = yes ]; then install_release; else say "release @RELEASE@ is in place"; fi
    if [ "$keep" = yes ]; then keep_channel; fi
    if [ "$hooks" = no ]; then
        say "skipped the post-install hooks; to run them: $prefix/bin/barehub install --base=$base --release=@RELEASE@ --name=$unit"
        exit 0
    fi
    run_hooks
}

# --- what was asked for -----------------------------------------------------------------------------------------------

parse_args() {
    while [ $# -gt 0 ]; do
        case $1 in
            -[bufskh]?*) # -bu is -b -u
                rest=${1#-?} first=${1%"$rest"}; shift; set -- "$first" "-$rest" "$@"; continue ;;
            -p?*) value=${1#-p}; shift; set -- -p "$value" "$@"; continue ;;
            --?*=*) value=${1#*=} first=${1%%=*}; shift; set -- "$first" "$value" "$@"; continue ;;
        esac
        case $1 in
            -b) batch=yes ;;
            -u) update=yes ;;
            -f) repair=yes ;;
            -s) hooks=no ;;
            -k) keep=yes ;;
            -h | --help) sed -n '2,/^# What follows/s/^# \{0,1\}//p' "$0"; exit 0 ;;
            --no-start) start=no ;;
            --no-db-backup) back_up=no ;;
            --require-same-packages) same_packages=yes ;;
            --dry-run) dry_run=yes ;;
            --verify) action=verify ;;
            --list) action=list ;;
            -p | --name | --from | --hub-user | --proxy-user | --bind-url | --wait | --keep | --log | --extract | \
                --tls-cert | --tls-key | --acme-email | --acme-ca-server | --acme-ca-bundle)
                if [ -z "${2:-}" ]; then die 2 "$1 needs a value" "sh $0 -h"; fi
                case $1 in
                    -p) base=$2 ;;
                    --name) name=$2 ;;
                    --from) from=$2 ;;
                    --hub-user) hub_user=$2 ;;
                    --proxy-user) proxy_user=$2 ;;
                    --bind-url) bind_url=$2 ;;
                    --tls-cert) tls_cert=$2 ;;
                    --tls-key) tls_key=$2 ;;
                    --acme-email) acme_email=$2 ;;
                    --acme-ca-server) acme_ca_server=$2 ;;
                    --acme-ca-bundle) acme_ca_bundle=$2 ;;
                    --wait) wait=$2 ;;
                    --keep) keep_releases=$2 ;;
                    --log) log=$2 ;;
                    --extract) action=extract target=$2 ;;
                esac
                shift ;;
            *) die 2 "unknown option: $1" "sh $0 -h" ;;
        esac
        shift
    done
}

ask_base() {
    say "@NAME@ @RELEASE@ will be installed into this directory:" "  $base" "" \
        "  - press ENTER to confirm it" "  - press CTRL-C to leave" "  - or type another one" ""
    printf '[%s] >>> ' "$base"
    read -r answer || die 2 "nobody answers" "give -b to be asked nothing"
    base=${answer:-$base}
}

ask_consent() {
    print_changes
    printf '\nproceed? [yes] >>> '
    read -r answer || die 2 "nobody answers" "give -b to be asked nothing"
    case $answer in '' | y | Y | yes | Yes | YES) ;; *) die 2 "nothing was installed" "answer yes to install" ;; esac
}

# --- checks: nothing is changed before all of them have passed --------------------------------------------------------

check_integrity() {
    for tool in awk df find flock id sha256sum tail tar; do
        command -v "$tool" >/dev/null || die 3 "'$tool' is needed but not installed" "install it with the system's packages"
    done
    size=$(wc -c <"$this")
    [ "$size" -eq "$file_bytes" ] ||
        die 5 "$this is damaged: it has $((size)) bytes instead of $file_bytes" "copy it here again"
    [ "$(payload | sha256sum | cut -d ' ' -f 1)" = @PAYLOAD_SHA256@ ] ||
        die 5 "$this is damaged: its checksum is wrong" "copy it here again"
}

check_platform() {
    system=$(uname -s) machine=$(uname -m)
    [ "$system $machine" = "Linux @MACHINE@" ] ||
        die 3 "this installer is for Linux @MACHINE@, not $system $machine" "get the one for this machine"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || glibc=
    glibc=${glibc#glibc }
    case $glibc in
        2.[0-9]*) ;;
        *) die 3 "this system has no GNU C library" "@NAME@ needs glibc >= @GLIBC@" ;;
    esac
    minor=${glibc#2.}
    [ "${minor%%.*}" -ge "$glibc_minor" ] ||
        die 3 "glibc $glibc is too old, this release needs @GLIBC@" "build it with an interpreter made for an older glibc"
}

check_options() {
    case $base in /*) ;; *) base=$PWD/$base ;; esac
    check_path
    case $name in
        '') ;;
        [!a-z]* | *[!a-z0-9-]*) die 2 "'$name' cannot be a unit name" "use a-z 0-9 - and start with a letter" ;;
    esac
    case $wait in *[!0-9]*) die 2 "'$wait' is not a number of seconds" "use something like --wait 60" ;; esac
    case $keep_releases in 0* | *[!0-9]*) die 2 "'$keep_releases' releases cannot be kept" "use 1 or more" ;; esac
    for user in $hub_user $proxy_user; do
        id -u "$user" >/dev/null 2>&1 || die 2 "there is no account '$user'" "useradd --system $user"
    done
    case $bind_url in
        '') ;;
        *[!A-Za-z0-9/._:%~\[\]-]*) die 2 "'$bind_url' is not a URL" "use something like http://:8000" ;;
        http://* | https://*) ;;
        *) die 2 "'$bind_url' is not a URL" "use something like http://:8000" ;;
    esac
    check_https
}

# Where the certificate comes from is said together with an https URL, and only with one.
check_https() {
    given="$tls_cert$tls_key$acme_email$acme_ca_server$acme_ca_bundle"
    case $bind_url in
        https://*) [ -n "$given" ] || die 2 "https needs a certificate" "give --acme-email, or --tls-cert and --tls-key" ;;
        *) [ -z "$given" ] || die 2 "a certificate needs an https URL" "give --bind-url https://hub.example.org too" ;;
    esac
    if [ -n "$tls_cert$tls_key" ]; then
        [ -z "$acme_email$acme_ca_server$acme_ca_bundle" ] ||
            die 2 "--tls-cert and --acme-email exclude each other" "give the one that is meant"
        case ,$tls_cert,$tls_key, in *,,*) die 2 "--tls-cert and --tls-key belong together" "give both" ;; esac
    elif [ -n "$given" ]; then
        case $acme_email in
            '') die 2 "an ACME server wants an e-mail address" "give --acme-email" ;;
            *[!A-Za-z0-9@._%+-]* | *@*@* | @* | *@) die 2 "'$acme_email' is not an e-mail address" "use something like me@example.org" ;;
            *@*) ;;
            *) die 2 "'$acme_email' is not an e-mail address" "use something like me@example.org" ;;
        esac
        case $acme_ca_server in
            '') ;;
            *[!A-Za-z0-9/._:%~-]*) die 2 "'$acme_ca_server' is not a URL" "give the https URL of the server's directory" ;;
            https://*) ;;
            *) die 2 "'$acme_ca_server' is not an https URL" "give the https URL of the server's directory" ;;
        esac
        host=${bind_url#https://} host=${host%%/*} host=${host%:*}
        case $host in
            *.*[!0-9.]*) ;;
            *) die 2 "ACME needs a host name, which $bind_url does not have" "use something like https://hub.example.org" ;;
        esac
    fi
    for file in "$tls_cert" "$tls_key" "$acme_ca_bundle"; do
        case $file in
            '') ;;
            /*) if [ -d "$file" ] || ! [ -r "$file" ]; then die 2 "cannot read $file" "name a PEM file"; fi ;;
            *) die 2 "$file is not an absolute path" "the proxy reads it at every start: give the whole path" ;;
        esac
        case $file in *[!A-Za-z0-9/._+@=,:~-]*) die 2 "'$file' cannot be written into a configuration" "rename it" ;; esac
    done
}

# Units and scripts hold the path: no character in it may mean something there.
check_path() {
    case $base in
        / | */../* | */.. | *[!A-Za-z0-9/._+-]*)
            die 2 "'$base' cannot be the base directory" "use a path of A-Z a-z 0-9 / . _ + - only" ;;
    esac
}

check_base() {
    anchor=$base
    while [ ! -e "$anchor" ]; do anchor=${anchor%/*}; anchor=${anchor:-/}; done
    [ -d "$anchor" ] || die 6 "$anchor is not a directory" "choose another one with -p"
    # The real path: an environment's files hold it, and a link on the way may be changed one day.
    real=$(cd -P "$anchor" && pwd)
    base=${real%/}${base#"${anchor%/}"} anchor=$real
    base=${base%/} prefix=$base/releases/@RELEASE@
    check_path
    if systemd_runs && [ "$hooks" = yes ]; then
        # The proxy's sandbox has directories of its own there.
        case $base/ in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
            die 6 "$base is where services cannot see it" "choose another one with -p, like /opt/@NAME@" ;;
        esac
    fi
    mounted=$(mount_of "$anchor")
    case ,${mounted#* }, in
        *,noexec,*) die 6 "$anchor is mounted noexec" "choose another one with -p, or remount it with exec" ;;
        *,ro,*) die 6 "$anchor is mounted read-only" "choose another one with -p, or remount it with rw" ;;
    esac
    [ -w "$anchor" ] || die 6 "$anchor cannot be written" "run this as root (sudo sh $0), or choose another one with -p"
    state=$anchor
    if [ -d "$base/state" ]; then state=$(cd -P "$base/state" && pwd); fi
    mounted=$(mount_of "$state")
    case ${mounted%% *} in
        nfs* | lustre | gpfs | beegfs* | ceph | cifs | smb* | afs | fuse.sshfs | fuse.glusterfs | 9p)
            die 6 "$state is on ${mounted%% *}, where SQLite databases get corrupted" "choose a local disk with -p" ;;
    esac
    if [ -e "$base" ] && ! is_ours; then die 6 "$base is not empty and not a barehub" "choose another one with -p"; fi
    recorded=$(sed -n 's/.*"name": "\(.*\)".*/\1/p' "$base/install.json" 2>/dev/null) || :
    if [ -n "$name" ] && [ -n "$recorded" ] && [ "$name" != "$recorded" ]; then
        die 2 "the barehub in $base is named $recorded" "leave out --name, or uninstall it first"
    fi
    unit=${recorded:-${name:-@NAME@}}
    place=/etc/systemd/system/$unit.target
    if [ -z "$recorded" ] && [ -e "$place" ]; then
        die 6 "$place belongs to another installation: $(readlink "$place" || echo a file)" "choose another --name"
    fi
}

# An installation, or what is left of one that was broken off; a new file system's lost+found does not count.
is_ours() {
    if grep -q '"proxy_user"' "$base/install.json" 2>/dev/null; then return; fi
    for receipt in "$base"/releases/*/share/barehub/release.json; do
        if [ -e "$receipt" ]; then return; fi
    done
    if [ -e "$base/.staging/barehub" ]; then
        others=$(find "$base" -mindepth 1 -maxdepth 1 ! -name .staging ! -name releases ! -name lost+found)
    else
        others=$(find "$base" -mindepth 1 ! -name lost+found ! -path "$base/.staging" ! -path "$base/releases")
    fi
    [ -z "$others" ]
}

check_release() {
    active=$(readlink "$base/hub" 2>/dev/null) || active=
    active=${active##*/} complete=no
    there=$(distribution_of "$base/releases/$active")
    if [ -e "$prefix/share/barehub/release.json" ]; then
        complete=yes theirs=$(distribution_of "$prefix")
        [ "$theirs" = @NAME@ ] || die 6 "$prefix is a release of $theirs, not of @NAME@" \
            "build this one with another label (release.py build --date), or choose another directory with -p"
    fi
    if [ -n "$active" ] && [ "$there" != @NAME@ ] && { [ "$update" = no ] || [ "$from" != "$there" ]; }; then
        die 6 "$base holds $there $active, which is not @NAME@" \
            "get the installer of $there, or put this in its place: -u --from $there"
    fi
    if [ -z "$active" ]; then
        [ "$update" = no ] || die 6 "there is nothing to update in $base" "leave out -u, or name the right directory with -p"
    elif [ "$active" != @RELEASE@ ]; then
        newest=$(printf '%s\n' "$active" @RELEASE@ | sort -V | tail -n 1)
        [ "$newest" = @RELEASE@ ] ||
            die 6 "$base runs $active, which is newer than @RELEASE@" \
                "to go back: $base/hub/bin/barehub rollback$([ "$complete" = no ] || echo ' @RELEASE@')"
        [ "$update" = yes ] || die 6 "$base already holds $there $active" "give -u to update it to @RELEASE@"
    fi
}

# What a release calls itself: the name its builder gave it.
distribution_of() {
    called=$(sed -n 's/^ "name": "\(.*\)",$/\1/p' "$1/share/barehub/release.json" 2>/dev/null) || :
    printf '%s\n' "${called:-@NAME@}"
}

check_space() {
    if [ "$complete" = yes ] && [ "$repair" = no ]; then return; fi
    free=$(df -Pk "$anchor" | awk 'END { print $4 }')
    for database in "$base"/state/hub/*.sqlite; do # two copies and a margin
        if [ -f "$database" ]; then needed_kb=$((needed_kb + 3 * $(du -k "$database" | cut -f 1))); fi
    done
    [ "$free" -ge "$needed_kb" ] ||
        die 4 "$anchor has $((free / 1024)) MB free, $((needed_kb / 1024)) MB are needed" "make room, or choose another one with -p"
    # Some file systems make inodes as they go and say 0 or -.
    inodes=$(df -Pi "$anchor" | awk 'END { if ($2 > 0) print $4 }')
    [ "${inodes:-$needed_inodes}" -ge "$needed_inodes" ] ||
        die 4 "$anchor has $inodes inodes free, $needed_inodes are needed" "make room, or choose another one with -p"
}

check_ports() {
    # An installation that is there holds its port itself.
    if [ "$hooks" = no ] || [ "$start" = no ] || { [ -n "$active" ] && [ -z "$bind_url" ]; }; then return; fi
    rest=${bind_url:-http://:8000}
    usual=80
    case $rest in https://*) usual=443 ;; esac
    rest=${rest#*://}
    rest=${rest%%/*}
    port=${rest##*:}
    case $port in '' | *[!0-9]*) port=$usual ;; esac
    case $port in 0* | ??????*) port=65536 ;; esac
    [ "$port" -le 65535 ] || die 2 "${rest##*:} is not a port" "use one from 1 to 65535"
    check_port "$port" "choose another port: --bind-url ${bind_url%%:*}://:8080"
    # Where HTTPS is at its usual port, HTTP is redirected to it from its own.
    if [ "$usual $port" = "443 443" ]; then check_port 80 "choose another port for HTTPS: without 443 there is no redirect"; fi
}

check_port() { # the port, what else can be done
    port=$1
    sockets=$(awk -v port="$(printf ':%04X' "$port")" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null) || :
    for inode in $sockets; do
        who='a process of another user'
        holders=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print 2>/dev/null) || :
        for holder in $holders; do
            pid=${holder#/proc/} pid=${pid%%/*}
            # systemd keeps our own sockets beside our own process
            case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$base"/*) continue 2 ;; esac
            who="$(cat "/proc/$pid/comm" 2>/dev/null) (pid $pid)"
        done
        die 8 "port $port is in use by $who" "stop it, or $2"
    done
}

# fstype and options of the mount that holds a path
mount_of() {
    awk -v path="$1/" '{
        point = $2 == "/" ? "/" : $2 "/"
        if (index(path, point) == 1 && length(point) >= longest) { longest = length(point); found = $3 " " $4 }
    } END { print found }' /proc/self/mounts
}

# --- what is done -----------------------------------------------------------------------------------------------------

print_changes() {
    say "this installs @NAME@ @RELEASE@:"
    if [ "$complete" = no ] || [ "$repair" = yes ]; then say "  write    $prefix ($((installed_kb / 1024)) MB)"; fi
    if [ "$keep" = yes ]; then say "  write    $base/channel"; fi
    if [ "$hooks" = no ]; then return; fi
    for path in state state/hub state/rules state/proxy state/acme jupyterhub_config.d systemd install.json \
        "systemd/$unit.target" "systemd/$unit-hub.service" "systemd/$unit-proxy.service" \
        "systemd/$unit-certificates.timer" "systemd/$unit-certificates.service"; do
        [ -e "$base/$path" ] || say "  write    $base/$path"
    done
    if [ -n "$bind_url" ]; then say "  write    $base/jupyterhub_config.d/10-install.py"; fi
    if [ -n "$active" ] && [ "$active" != @RELEASE@ ]; then
        say "  write    $base/state/hub/backups/jupyterhub-$active.sqlite" \
            "  migrate  the database in $base/state/hub if its schema is older" \
            "  remove   releases and backups but for the newest ${keep_releases:-2}"
    fi
    if [ "$active" != @RELEASE@ ]; then say "  switch   $base/hub from ${active:-nothing} to @RELEASE@"; fi
    if ! systemd_runs; then say "  start    nothing: systemd or root is missing here"; return; fi
    if [ -z "$recorded" ] && [ -z "$proxy_user" ] && ! id www-data >/dev/null 2>&1 && ! id "$unit-proxy" >/dev/null 2>&1; then
        say "  account  $unit-proxy, for the proxy"
    fi
    for suffix in .target -hub.service -proxy.service -certificates.timer -certificates.service; do
        [ -e "/etc/systemd/system/$unit$suffix" ] || say "  link     /etc/systemd/system/$unit$suffix"
    done
    [ -e "/etc/systemd/system/multi-user.target.wants/$unit.target" ] ||
        say "  link     /etc/systemd/system/multi-user.target.wants/$unit.target"
    if [ "$start" = no ]; then return; fi
    if [ -n "$active" ]; then say "  restart  what of $unit.target has changed"; else say "  start    $unit.target"; fi
}

systemd_runs() { [ -d /run/systemd/system ] && [ "$(id -u)" -eq 0 ]; }

# The lock is on the directory itself and ends with the last process that holds it, so it can be neither left behind
# nor forgotten. What lies in .staging when we hold it is an interrupted run's, as is a release without a receipt.
lock_base() {
    missing=$base
    while [ ! -e "$missing" ]; do created="$created $missing"; missing=${missing%/*}; missing=${missing:-/}; done
    mkdir -p "$base"
    exec 9<"$base"
    flock -n 9 || die 6 "another installer is at work in $base" "wait until it has finished"
    stage=$base/.staging
    # A repair that was cut off has put the release aside.
    for aside in "$stage"/replaced/*; do
        if [ -e "$aside/share/barehub/release.json" ]; then
            rm -rf "$base/releases/${aside##*/}"
            mv "$aside" "$base/releases/"
        fi
    done
    rm -rf "$stage"
    mkdir -m 700 "$stage"
    : >"$stage/barehub" # tells whose it is
    for left in "$base"/releases/[0-9][0-9][0-9][0-9].[0-9][0-9].[0-9][0-9]*; do
        [ -e "$left/share/barehub/release.json" ] || rm -rf "$left"
    done
    check_release # the one that was at work before may have finished
}

install_release() {
    say "unpacking"
    payload | tar -xf - -C "$stage" || die 4 "unpacking to $stage failed" "see the message above; is the disk full?"
    mkdir -p "$base/releases"
    if [ -e "$prefix" ]; then
        by_hand=$("$prefix/bin/python" -I -m barehub.lifecycle.added_packages 2>/dev/null) || by_hand=
        [ -z "$by_hand" ] || say "added to it by hand, and to be added again: $by_hand"
        mkdir "$stage/replaced"
        mv "$prefix" "$stage/replaced/"
    fi
    say "installing release @RELEASE@ into $prefix"
    # In the background, since a shell runs its traps only between commands.
    in_clean_environment HOME="$stage" TMPDIR="$stage" TMP="$stage" TEMP="$stage" \
        sh "$stage/engine/fill" "$stage/channel" "$prefix" "$stage" >"$stage/engine.log" 2>&1 &
    engine=$!
    wait "$engine" || { code=$?; engine=''; engine_failed "$code"; }
    engine=''
    if [ -n "$log" ]; then cat "$stage/engine.log" >>"$log"; fi
    # Whatever the engine thinks: the hub may run as any account, and nobody but root changes a release.
    chmod -R go+rX,go-w "$prefix"
    # A power cut must not leave a receipt without the files it vouches for.
    sync -f "$prefix" 2>/dev/null || sync
    mv "$stage/release.json" "$prefix/share/barehub/release.json"
    sync -f "$prefix" 2>/dev/null || sync
    installed=yes
}

keep_channel() {
    [ -d "$stage/channel" ] || payload | tar -xf - -C "$stage" || die 4 "unpacking to $stage failed" "is the disk full?"
    rm -rf "$base/channel"
    mv "$stage/channel" "$base/channel"
}

engine_failed() {
    if [ -n "$log" ]; then cat "$stage/engine.log" >>"$log"; fi
    tail -n 5 "$stage/engine.log" >&2
    if grep -q 'No space left' "$stage/engine.log"; then die 4 "the disk is full" "make room, then run this again"; fi
    die 1 "filling $prefix failed with status $1" "run this again; the messages above say what went wrong"
}

run_hooks() {
    rm -rf "$stage"
    trap - EXIT
    set -- --base="$base" --release=@RELEASE@
    set -- "$@" --name="$unit"
    [ -z "$hub_user" ] || set -- "$@" --hub-user="$hub_user"
    [ -z "$proxy_user" ] || set -- "$@" --proxy-user="$proxy_user"
    [ -z "$bind_url" ] || set -- "$@" --bind-url="$bind_url"
    [ -z "$tls_cert" ] || set -- "$@" --tls-cert="$tls_cert" --tls-key="$tls_key"
    [ -z "$acme_email" ] || set -- "$@" --acme-email="$acme_email"
    [ -z "$acme_ca_server" ] || set -- "$@" --acme-ca-server="$acme_ca_server"
    [ -z "$acme_ca_bundle" ] || set -- "$@" --acme-ca-bundle="$acme_ca_bundle"
    [ -z "$log" ] || set -- "$@" --log="$log"
    [ -z "$wait" ] || set -- "$@" --wait="$wait"
    [ -z "$keep_releases" ] || set -- "$@" --keep="$keep_releases"
    [ "$back_up" = yes ] || set -- "$@" --no-db-backup
    [ "$same_packages" = no ] || set -- "$@" --require-same-packages
    [ "$start" = yes ] || set -- "$@" --no-start
    [ "${installed:-no} $active" != "yes @RELEASE@" ] || set -- "$@" --restart # its files are other ones now
    in_clean_environment HOME=/ "$prefix/bin/python" -I -m barehub install "$@"
}

# Become a command that sees nothing of the caller's CONDA_*, PYTHON*, PIP_*, TMPDIR and so on.
in_clean_environment() { exec env -i PATH="$PATH" LC_ALL=C.UTF-8 "$@"; }

# Nothing is left of a run that does not get through, but what was there before.
# shellcheck disable=SC2317  # it is a trap that calls it
clean_up() {
    code=$?
    trap - EXIT
    trap '' HUP INT TERM
    [ -z "${engine:-}" ] || { kill "$engine" 2>/dev/null; wait "$engine" 2>/dev/null || :; }
    if [ -n "$stage" ] && [ "${installed:-no}" = no ] && [ "$complete" = no ]; then rm -rf "$prefix"; fi
    if [ -n "$stage" ] && [ -e "$stage/replaced" ] && [ "${installed:-no}" = no ]; then
        rm -rf "$prefix"
        mv "$stage/replaced/@RELEASE@" "$prefix"
    fi
    [ -z "$stage" ] || rm -rf "$stage"
    if [ "$code" -ne 0 ] && [ -n "$stage" ]; then rmdir "$base/releases" 2>/dev/null || :; fi
    for directory in $created; do rmdir "$directory" 2>/dev/null || :; done
    case $code in 129 | 130 | 143) printf 'error: interrupted\n  fix: run this again\n' >&2 ;; esac
    exit "$code"
}

extract_to() {
    mkdir -p "$1"
    if [ ! -e "$1/noarch/repodata.json" ] && [ -n "$(find "$1" -mindepth 1 ! -path "$1/.new*" -print -quit)" ]; then
        die 2 "$1 is not empty and no channel" "name a new directory, or one that --extract has made"
    fi
    exec 9<"$1"
    flock -n 9 || die 6 "somebody else is adding to $1" "wait until that has finished"
    new=$1/.new
    trap 'rm -rf "$new"' EXIT
    trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
    rm -rf "$new"
    mkdir "$new"
    payload | tar -xf - -C "$new" || die 4 "unpacking to $1 failed" "see the message above; is the disk full?"
    (cd "$new" && sha256sum --quiet -c SHA256SUMS) || die 5 "what was unpacked to $1 is damaged" "try another disk"
    sed -n '/repodata[.]json$/d; s|  channel/|  |p' "$new/SHA256SUMS" >"$new/channel/SHA256SUMS"
    sh "$new/add_to_channel.sh" "$new/channel" "$1" || exit
    papers=$1/releases/@NAME@-@RELEASE@
    mkdir -p "$papers"
    sed 's|^  - \./channel$|  - ../..|' "$new/environment.lock.yml" >"$papers/environment.lock.yml"
    mv "$new/packages.txt" "$new/release.json" "$new/sbom.cdx.json" "$papers/"
}

payload() { tail -c +@PAYLOAD_START@ "$this"; }

say() { # each argument is a line
    printf '%s\n' "$@"
    if [ -n "$log" ] && [ -n "$stage" ]; then printf '%s\n' "$@" >>"$log"; fi
}

die() { # status, what is wrong, what to do
    if [ -n "$log" ] && [ -n "$stage" ]; then printf 'error: %s\n  fix: %s\n' "$2" "$3" >>"$log"; fi
    printf 'error: %s\n  fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

# zsh has its own ways with $0, word splitting and traps otherwise.
if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi
main "$@"
exit
