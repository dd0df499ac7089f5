# The last to leave: when its standard input ends, because the test process let
# go of the server or is dead, kills the server and removes its folder.
# Until then it sends signals. Every command is one line, and is answered by one.
folder=$1
leftovers=$2
server=

# The processes that the server started, and those they started, without the dead;
# with `server` itself if the argument says so.
alive() {
    ps -A -o pid= -o ppid= -o stat= | awk -v server="$server" -v with="${1:-children}" '
        { parent[$1] = $2; state[$1] = $3 }
        END {
            ours[server]
            do {
                more = 0
                for (pid in parent)
                    if (!(pid in ours) && parent[pid] in ours) { ours[pid]; more = 1 }
            } while (more)
            if (with != "server") delete ours[server]
            for (pid in ours) if (pid in state && state[pid] !~ /^Z/) print pid
        }'
}

# PostgreSQL gives each of its processes a group of its own, so a signal to a
# group reaches one. The server itself is first stopped, and starts no more.
everything() {
    [ -n "$server" ] || return 0
    kill -s STOP "$server"
    # shellcheck disable=SC2046,SC2086 # words, one process each
    case $1 in
    KILL)
        # All must be gone before the server is: the next one would find them
        # attached to its memory.
        while left=$(alive) && [ -n "$left" ]; do
            kill -s KILL $left
            sleep 0.01
        done
        kill -s KILL "$server"
        # It dies a while, and holds its port and its files as long.
        while [ -n "$(alive server)" ]; do
            sleep 0.01
        done
        ;;
    *)
        kill -s "$1" $(alive)
        kill -s "$1" "$server"
        ;;
    esac
}

while read -r verb what; do
    case $verb in
    watch) server=$what ;;
    server) kill -s "$what" "$server" ;;
    everything) everything "$what" ;;
    esac 2>/dev/null
    echo
done

everything KILL 2>/dev/null
eval "$leftovers" >/dev/null 2>&1
rm -rf "$folder"
