#!/bin/sh
# Runs on both nodes when one of them joins. What the joining node missed is sent
# by the servers themselves, once it has heard from here that this is enough. A
# copy of everything is refused: the programs that make one are on few machines,
# and every node begins with the same data.
bypass=
while [ $# -gt 0 ]; do
    case $1 in
    --role) role=$2 ;;
    --address) address=$2 ;;
    --datadir) data=$2 ;;
    --parent) parent=$2 ;;
    --gtid) position=$2 ;;
    --bypass) bypass=yes ;;
    --mysqld-args) break ;;
    esac
    shift
done

case $role in
joiner)
    file=${data%/}/transferred
    rm -f "$file"
    echo "ready $file"
    until [ -e "$file" ]; do
        kill -0 "$parent" 2>/dev/null || exit 1
        sleep 0.02
    done
    cat "$file"
    rm -f "$file"
    ;;
donor)
    if [ -z "$bypass" ]; then
        echo 'the joining node was away for longer than what it missed is kept' >&2
        exit 1
    fi
    echo continue
    echo "$position" >"$address.new"
    mv "$address.new" "$address"
    echo "done $position"
    ;;
esac
