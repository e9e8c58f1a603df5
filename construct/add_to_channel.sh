#!/bin/sh
# usage: add_to_channel.sh FROM TO
#   Move the packages of the conda channel FROM into the conda channel TO, which may hold others or nothing. Both are on
#   one file system; the caller holds the lock on TO; FROM is used up.
# usage: add_to_channel.sh --unpack NAME TO <TAR
#   The same for the payload of an installer, which is TAR. TO may be new and gets what describes the release, too, as
#   TO/releases/NAME. This takes the lock itself.
#
# Readers of TO can use it at any time: archives come before the index that names them, each file appears by a rename,
# nothing is removed. The index has a line for each package, as recipe/channel.py writes it, so that sort and awk can
# merge two. A head node may have nothing but POSIX tools, which is why this is not Python.
# shellcheck disable=SC2317,SC2329  # `rewrite` calls functions by name
set -eu
export LC_ALL=C

main() {
    if [ "$1" = --unpack ]; then unpack "$2" "$3"; return; fi
    from=$1 to=$2
    for from_index in "$from"/*/repodata.json; do check_subdir "$(basename "$(dirname "$from_index")")"; done
    added=0 kept=0
    for from_index in "$from"/*/repodata.json; do add_subdir "$(basename "$(dirname "$from_index")")"; done
    rewrite "$to/SHA256SUMS" sums
    echo "added $added packages to $to, which had $kept of them already"
}

unpack() { # the release's NAME, TO
    mkdir -p "$2"
    if [ ! -e "$2/noarch/repodata.json" ] && [ -n "$(find "$2" -mindepth 1 ! -path "$2/.new*" -print -quit)" ]; then
        die 2 "$2 is not empty and no channel" "name a new directory, or one that --extract has made"
    fi
    exec 9<"$2"
    flock -n 9 || die 6 "another process is adding to $2" "wait until it has finished"
    new=$2/.new
    trap 'rm -rf "$new"' EXIT
    trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM
    rm -rf "$new"
    mkdir "$new"
    tar -xf - -C "$new" || die 4 "unpacking to $2 failed" "see the message above; is the disk full?"
    # busybox has no --quiet
    (cd "$new" && sha256sum -c SHA256SUMS >sums.log) || {
        grep -v ': OK$' "$new/sums.log" >&2
        die 5 "what was unpacked to $2 is damaged" "try another disk"
    }
    sed -n '/repodata[.]json$/d; s|  channel/|  |p' "$new/SHA256SUMS" >"$new/channel/SHA256SUMS"
    main "$new/channel" "$2"
    about=$2/releases/$1
    mkdir -p "$about"
    sed 's|^  - \./channel$|  - ../..|' "$new/environment.lock.yml" >"$about/environment.lock.yml"
    # construct/construct.yaml reads the scripts and the manifest
    mv "$new/packages.txt" "$new/release.json" "$new/sbom.cdx.json" "$about/"
    mv "$new/preflight.sh" "$new/ports.sh" "$new/steps.sh" "$about/"
    if [ -e "$new/manifest.gz" ]; then mv "$new/manifest.gz" "$about/"; fi
}

# Nothing is changed before everything is known to fit.
check_subdir() {
    [ -e "$to/$1/repodata.json" ] || return 0
    if [ "$(awk "$packages"' { n++ } END { print n + 0 }' "$to/$1/repodata.json")" -ne \
        "$(awk '{ n += gsub(/"subdir"/, "") } END { print n - 1 }' "$to/$1/repodata.json")" ]; then
        die 6 "$to/$1/repodata.json was written by another tool" \
            "name a directory that release.py mirror or --extract made"
    fi
    for archive in "$from/$1"/*.conda "$from/$1"/*.tar.bz2; do
        there=$to/$1/${archive##*/}
        if [ -e "$archive" ] && [ -e "$there" ] && ! same "$archive" "$there"; then
            die 6 "$there differs from the package of the same name" \
                "it is damaged, or was changed: find out why, then remove it"
        fi
    done
}

add_subdir() {
    mkdir -p "$to/$1"
    for archive in "$from/$1"/*.conda "$from/$1"/*.tar.bz2; do
        [ -e "$archive" ] || continue
        if [ -e "$to/$1/${archive##*/}" ]; then kept=$((kept + 1)); continue; fi
        mv "$archive" "$to/$1/"
        added=$((added + 1))
    done
    sync -f "$to/$1" 2>/dev/null || sync
    rewrite "$to/$1/repodata.json" index "$1"
    rewrite "$to/$1/repodata.json.zst" zst "$to/$1/repodata.json"
}

# The line of a package that TO has stays, as its archive does.
index() {
    printf '{\n "info": {"subdir": "%s"},\n' "$1"
    for section in packages packages.conda; do
        printf ' "%s": {\n' "$section"
        section_lines "$1" "$to" "$from" | awk '!seen[$1]++' | sort | sed '$!s/$/,/'
        printf ' },\n'
    done
    printf ' "removed": [],\n "repodata_version": 1\n}\n'
}

section_lines() { # subdir, channels
    section_subdir=$1; shift
    for section_channel; do
        section_file=$section_channel/$section_subdir/repodata.json
        [ ! -e "$section_file" ] ||
            awk -v section="\"$section\":" "$packages"' && inside == section { sub(/,$/, ""); print }' "$section_file"
    done
}

# An awk pattern for the lines of packages, which notes the section they are in.
# shellcheck disable=SC2016  # awk's $
packages='/^ "[a-z.]+": \{$/ { inside = $1 } /^  "[^"]*": \{.*\},?$/'

sums() {
    set -- "$from/SHA256SUMS"
    [ ! -e "$to/SHA256SUMS" ] || set -- "$to/SHA256SUMS" "$@"
    sort -u -k 2 "$@"
}

# Compressed where there is zstd; else a frame of stored blocks, which every decoder takes (RFC 8878, 3.1.1).
zst() {
    if command -v zstd >/dev/null; then zstd -q -19 -c "$1"; return; fi
    size=$(wc -c <"$1") block=0
    # magic number; a single segment whose size is in 4 bytes
    printf '\050\265\057\375\240'; little_endian "$size" 4
    while [ "$size" -gt 0 ]; do
        length=$((size > 131072 ? 131072 : size)) size=$((size > 131072 ? size - 131072 : 0))
        little_endian $((length * 8 + (size == 0))) 3
        dd if="$1" bs=131072 skip="$block" count=1 2>/dev/null
        block=$((block + 1))
    done
}

little_endian() { # number, bytes
    number=$1 bytes=$2
    while [ "$bytes" -gt 0 ]; do
        # shellcheck disable=SC2059  # the format is the byte
        printf "\\$(printf %03o $((number % 256)))"
        number=$((number / 256)) bytes=$((bytes - 1))
    done
}

rewrite() { # file, what prints its new content
    rewritten=$1; shift
    "$@" >"$rewritten.new"
    if [ -e "$rewritten" ] && same "$rewritten.new" "$rewritten"; then rm "$rewritten.new"; return; fi
    sync -f "$rewritten.new" 2>/dev/null || sync
    mv "$rewritten.new" "$rewritten"
}

same() { [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; } # cmp is not everywhere

die() { # exit status, what is wrong, what to do
    printf 'error: %s\n  fix: %s\n' "$2" "$3" >&2
    exit "$1"
}

main "$@"
exit
