# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# Whether something else listens where people are to reach the hub: address and port. Functions only, the last of the
# checks of preflight.sh, which says what they need. The ports that an installation chooses itself are the hooks'
# (barehub.lifecycle.ports).

check_ports() {
    if [ "$hooks" = no ] || [ "$opt_no_start" = yes ]; then return; fi
    if [ -n "$active" ] && [ -z "$opt_bind_url" ]; then return; fi # the active release has them
    address=${opt_bind_url:-http://:8000} usual=80 scheme=http
    case $address in https://*) usual=443 scheme=https ;; esac
    address=${address#*://} address=${address%%/*}
    port=${address##*:}
    case $port in '' | *[!0-9]*) port=$usual ;; esac
    case $port in 0* | ??????*) port=65536 ;; esac
    [ "$port" -le 65535 ] || die 2 "${address##*:} is not a port" "use one from 1 to 65535"
    host=${address%:"$port"}
    check_port "$host" "$port" "choose another port: --bind-url $scheme://:8080"
    [ "$usual $port" = "443 443" ] || return 0
    # Where HTTPS is at its usual port, HTTP is redirected to it from its own.
    check_port "$host" 80 "choose another port for HTTPS: without 443 there is no redirect"
}

check_port() { # host, port, what else can be done
    case $1 in
        '' | '*' | '[::]') wanted=any ;;
        0.0.0.0) wanted=any4 ;;
        *)
            wanted=$(printf '%s\n' "$1" | tr -d '[]')
            case $scheme,$wanted in
                *:*) ;;
                https,*[!0-9.]*) wanted='' ;; # people's name for this machine (barehub.urls.listening)
                *[!0-9.]*) wanted=$(getent ahosts "$wanted" | awk 'NR == 1 { print $1 }') || : ;;
            esac
            wanted=${wanted:-any} ;;
    esac
    sockets=$(awk -v port="$(printf '%04X' "$2")" -v wanted="$wanted" "$listeners" \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null) || :
    for inode in $sockets; do
        who='a process of another user'
        holders=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" -print 2>/dev/null) || :
        for holder in $holders; do
            pid=${holder#/proc/} pid=${pid%%/*}
            # systemd keeps our own sockets beside our own process
            case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$base"/*) continue 2 ;; esac
            who="$(cat "/proc/$pid/comm" 2>/dev/null) (pid $pid)"
        done
        die 8 "port $2 is in use by $who" "stop it, or $3"
    done
}

# Print the inodes of the sockets of /proc/net/tcp and tcp6 that listen on `port` where `wanted`, an address, any4 or
# any, does too. The kernel prints an address as words in the machine's byte order, which is little-endian here.
# shellcheck disable=SC2016  # awk's own variables
listeners='
    function word(text) { return substr(text, 7, 2) substr(text, 5, 2) substr(text, 3, 2) substr(text, 1, 2) }
    function groups(text, parts, count, i, digits) {
        count = split(text, parts, ":")
        for (i = 1; i <= count; i++) digits = digits substr("0000" parts[i], length(parts[i]) + 1)
        return digits
    }
    function hex(address, part, left, right) {
        if (split(address, part, ".") == 4) return sprintf("%02X%02X%02X%02X", part[4], part[3], part[2], part[1])
        split(address, part, "::")
        left = groups(part[1]); right = groups(part[2])
        address = toupper(left substr(zeros, 1, 32 - length(left right)) right)
        return word(substr(address, 1, 8)) word(substr(address, 9, 8)) \
            word(substr(address, 17, 8)) word(substr(address, 25, 8))
    }
    BEGIN { zeros = sprintf("%032d", 0); if (wanted !~ /^any/) own = hex(wanted) }
    $4 == "0A" && split($2, at, ":") == 2 && at[2] == port {
        there = at[1]
        sub(/^0000000000000000FFFF0000/, "", there) # an IPv4 address, written as one of IPv6
        four = wanted == "any4" || length(own) == 8
        if (wanted == "any" || there == own || there == zeros || (four && there == "00000000") ||
            (wanted == "any4" && length(there) == 8)) print $10
    }'
