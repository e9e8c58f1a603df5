# shellcheck shell=sh disable=SC2034,SC2154  # it shares its variables with the scripts that read it
# Where people are to reach the hub: whether the URL has a certificate, and whether something else listens there. These
# functions are the part of preflight.sh's checks that is about the network; that file says what they need. The ports
# that an installation chooses itself are the hooks' (barehub.lifecycle.ports).

# An https URL comes with a source of its certificate, and no other URL does.
check_https() {
    files=$opt_tls_cert$opt_tls_key acme=$opt_acme_email$opt_acme_ca_server$opt_acme_ca_bundle
    case $opt_bind_url in
        https://*)
            [ -n "$files$acme" ] ||
                die 2 "https needs a certificate" "give --acme-email, or --tls-cert and --tls-key" ;;
        *)
            [ -z "$files$acme" ] ||
                die 2 "a certificate needs an https URL" "give --bind-url https://hub.example.org too" ;;
    esac
    [ -z "$acme" ] || [ -z "$files" ] || die 2 "--tls-cert and --acme-email exclude each other" "give only one of them"
    case $opt_tls_cert,$opt_tls_key in ?*, | ,?*) die 2 "--tls-cert and --tls-key belong together" "give both" ;; esac
    [ -z "$acme" ] || check_acme
    for file in "$opt_tls_cert" "$opt_tls_key" "$opt_acme_ca_bundle"; do
        case $file in
            '') ;;
            /*) if [ -d "$file" ] || ! [ -r "$file" ]; then die 2 "cannot read $file" "name a PEM file"; fi ;;
            *) die 2 "$file is not an absolute path" "the proxy reads it at every start: give the whole path" ;;
        esac
        case $file in
            *[!A-Za-z0-9/._+@=,:~-]*) die 2 "'$file' cannot be written into a configuration" "rename it" ;;
        esac
    done
}

check_acme() {
    address="use something like me@example.org" directory="give the https URL of the server's directory"
    case $opt_acme_email in
        '') die 2 "an ACME server needs an e-mail address" "give --acme-email" ;;
        *[!A-Za-z0-9@._%+-]* | *@*@*) die 2 "'$opt_acme_email' is not an e-mail address" "$address" ;;
        ?*@?*) ;;
        *) die 2 "'$opt_acme_email' is not an e-mail address" "$address" ;;
    esac
    case $opt_acme_ca_server in
        *[!A-Za-z0-9/._:%~-]*) die 2 "'$opt_acme_ca_server' is not a URL" "$directory" ;;
        '' | https://*) ;;
        *) die 2 "'$opt_acme_ca_server' is not an https URL" "$directory" ;;
    esac
    host=${opt_bind_url#https://} host=${host%%/*} host=${host%:*}
    case $host in
        *.*[!0-9.]*) ;;
        *) die 2 "ACME needs a host name, which $opt_bind_url does not have" "use one like https://hub.example.org" ;;
    esac
}

check_ports() {
    if [ "$hooks" = no ] || [ "$opt_no_start" = yes ]; then return; fi
    if [ -n "$active$opt_restore" ] && [ -z "$opt_bind_url" ]; then return; fi # the configuration has them
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
