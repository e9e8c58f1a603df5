#!/bin/sh
# usage: add_to_channel.sh FROM TO: move the packages of the conda channel FROM into the conda channel TO, which may hold
# others or nothing. Both are on one file system; the caller holds the lock on TO; FROM is used up.
#
# Readers of TO are never in trouble: archives come before the index that names them, each file appears by a rename,
# nothing is removed. The index has a line for each package, as recipe/channel.py writes it, so that sort and awk can
# merge two. A head node may have nothing but POSIX tools, which is why this is not Python.
# shellcheck disable=SC2317  # `rewrite` calls functions by name
set -eu
export LC_ALL=C
from=$1 to=$2

main() {
    for index in "$from"/*/repodata.json; do check_subdir "$(basename "$(dirname "$index")")"; done
    added=0 kept=0
    for index in "$from"/*/repodata.json; do add_subdir "$(basename "$(dirname "$index")")"; done
    rewrite "$to/SHA256SUMS" sums
    echo "added $added packages to $to, $kept were there"
}

# Nothing is changed before all is known to fit.
check_subdir() {
    [ -e "$to/$1/repodata.json" ] || return 0
    if [ "$(awk "$packages"' { n++ } END { print n + 0 }' "$to/$1/repodata.json")" -ne \
        "$(awk '{ n += gsub(/"subdir"/, "") } END { print n - 1 }' "$to/$1/repodata.json")" ]; then
        die "$to/$1/repodata.json was written by another tool" "name a directory that release.py mirror or --extract made"
    fi
    for archive in "$from/$1"/*.conda "$from/$1"/*.tar.bz2; do
        there=$to/$1/${archive##*/}
        if [ -e "$archive" ] && [ -e "$there" ] && ! same "$archive" "$there"; then
            die "$there differs from the package of the same name" "it is damaged, or was changed: look into it, then remove it"
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

# Of each package the line that is there stays, as its archive does.
index() {
    printf '{\n "info": {"subdir": "%s"},\n' "$1"
    for section in packages packages.conda; do
        printf ' "%s": {\n' "$section"
        for file in "$to/$1/repodata.json" "$from/$1/repodata.json"; do
            [ ! -e "$file" ] || awk -v section="\"$section\":" "$packages"' && inside == section { sub(/,$/, ""); print }' "$file"
        done | awk '!seen[$1]++' | sort | sed '$!s/$/,/'
        printf ' },\n'
    done
    printf ' "removed": [],\n "repodata_version": 1\n}\n'
}

# An awk pattern for the lines of packages, which notes the section they are in.
# shellcheck disable=SC2016  # awk's $
packages='/^ "[a-z.]+": \{$/ { inside = $1 } /^  "[^"]*": \{.*\},?$/'

sums() {
    for file in "$to/SHA256SUMS" "$from/SHA256SUMS"; do [ ! -e "$file" ] || cat "$file"; done | sort -u -k 2
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
    file=$1; shift
    "$@" >"$file.new"
    if [ -e "$file" ] && same "$file.new" "$file"; then rm "$file.new"; return; fi
    sync -f "$file.new" 2>/dev/null || sync
    mv "$file.new" "$file"
}

same() { [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; } # cmp is not everywhere

die() { # what is wrong, what to do
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 6
}

main
exit
