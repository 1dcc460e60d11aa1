# shellcheck shell=sh
# The guest shell of pytest-vmsnap: it runs commands that come over virtio-serial ports, several at once.
#
#   sh guest.sh
#
# Each slot has two ports. vmsnap.SLOT.0: commands in, stdout out. vmsnap.SLOT.1: input in, stderr out. A command
# is a line; the next line is its mark, which comes back on both ports behind all that the command wrote, with
# the status on the first. The command cannot know its mark: the shell reads it when the command has ended.
#
# The process that runs a command is forked before the command is there: it waits in `read`, and a machine
# that is saved and cloned finds it there.

if [ "$1" != shell ]; then
  cd /
  unset OLDPWD JOURNAL_STREAM INVOCATION_ID SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  HOME=/root USER=root LOGNAME=root SHELL=/bin/sh
  export PATH HOME USER LOGNAME SHELL

  # Sets `port_SLOT_0` and `port_SLOT_1` to devices. There may be no udev, and so no /dev/virtio-ports.
  find_ports() {
    found=0
    for entry in /sys/class/virtio-ports/*; do
      IFS= read -r name 2>/dev/null <"$entry/name" || continue
      case $name in vmsnap.[0-4].[01]) ;; *) continue ;; esac
      device=/dev/${entry##*/} slot=${name#vmsnap.}
      if [ ! -e "$device" ] && IFS=: read -r major minor <"$entry/dev"; then mknod "$device" c "$major" "$minor"; fi
      eval "port_${slot%.*}_${slot#*.}=$device"
      found=$((found + 1))
    done
    [ "$found" -eq 10 ]
  }

  # A port opens once: whoever is left of an earlier shell is to let go of it.
  free_port() {
    for entry in /proc/[0-9]*/fd/*; do
      # shellcheck disable=SC3013 # no POSIX, but every sh of a Linux has it
      if [ "$entry" -ef "$1" ] 2>/dev/null; then
        holder=${entry#/proc/}
        kill -s KILL "${holder%%/*}" 2>/dev/null
      fi
    done
  }

  # The slot's shell, started anew whenever it dies.
  serve() {
    first=
    while :; do
      $lead sh -c ". '$0'" sh shell "$first"
      status=$?
      sleep 0.1
      # what is on its way now is the mark of the command that killed it, or the next command
      until IFS= read -r first <&3; do sleep 0.2; done
      case $first in
        '#'*)
          echo "$first" >&2
          echo "$first $status died"
          first=
          ;;
      esac
    done
  }

  # A command's streams are pipes: it may open /dev/stdout, and a port opens once.
  slot() {
    exec </dev/null >/dev/null 2>&1
    port='' data=''
    eval "port=\$port_$1_0 data=\$port_$1_1"
    while [ -d "/proc/$$" ]; do # as long as the script itself lives: another may have taken its place
      (
        exec 3<>"$port" 4<>"$data"
        { serve 2>&1 >&5 5>&- | cat >&4 3>&- 5>&-; } 5>&1 | cat >&3 4>&-
      )
      free_port "$port"
      free_port "$data"
      sleep 0.2
    done
  }

  pause=0.2 tries=0
  until find_ports; do
    [ "$tries" -lt 40 ] || pause=60 # a machine that is reached otherwise
    sleep "$pause"
    tries=$((tries + 1))
  done
  if (setsid true) 2>/dev/null; then lead=setsid; else lead=; fi
  # a pipeline, and not `&`, which would have every command ignore SIGINT
  slot 0 | slot 1 | slot 2 | slot 3 | slot 4
  exit
fi

# $1: a slot's shell. Kills what its command has started: its descendants, and the orphans in its group that
# are younger than the command. By builtins alone: a fork may be refused.
_vmsnap_kill() {
  shell=$1 round=0 since=
  while [ "$round" -lt 30 ]; do
    round=$((round + 1)) table=
    for entry in /proc/[0-9]*; do
      { IFS= read -r line <"$entry/stat"; } 2>/dev/null || continue
      pid=${line%% *} line=${line##*) }
      # shellcheck disable=SC2086 # fields: state, parent, group, ...; the 20th is the start
      set -- $line
      case $1 in Z | X) ;; *) table="$table $pid:$2:$3:${20}" ;; esac
    done
    victims=" " again=y
    while [ "$again" ]; do
      again=
      for entry in $table; do
        pid=${entry%%:*} line=${entry#*:}
        parent=${line%%:*} line=${line#*:}
        group=${line%%:*} start=${line#*:}
        case $victims in *" $pid "*) continue ;; esac
        if [ "$parent" = "$shell" ]; then
          since=${since:-$start} # of the first round: what a victim forked meanwhile is older than its successor
        else
          case $victims in
            *" $parent "*) ;;
            *) # an orphan in the group; none before the first descendant is found
              [ "$group" = "$shell" ] || continue
              [ "$pid" != "$shell" ] || continue
              [ "$start" -ge "${since:-$start$start}" ] || continue
              ;;
          esac
        fi
        victims="$victims$pid " again=y
      done
    done
    [ "$victims" != " " ] || return 0
    # shellcheck disable=SC2086
    kill -s KILL $victims 2>/dev/null
  done
  return 1
}

# $1: a number. Copies that many bytes from the input.
if [ "$(printf abc | head -c 2 2>/dev/null)" = ab ]; then
  _vmsnap_take() { head -c "$1" <&4; }
else
  _vmsnap_take() { dd bs=1 count="$1" <&4 2>/dev/null; }
fi

# The process that has run a command answers too, before it ends: it tells the shell by a pipe of theirs, in lines
# that begin with a word of theirs. Where there is no place for a pipe, the shell answers.
_vmsnap_tells=
for _vmsnap_place in /dev/shm /run /tmp /; do
  if mkfifo "$_vmsnap_place/.vmsnap.$$"; then
    exec 7<>"$_vmsnap_place/.vmsnap.$$"
    rm "$_vmsnap_place/.vmsnap.$$"
    IFS= read -r _vmsnap_tells </proc/sys/kernel/random/uuid
    break
  fi 2>/dev/null
done

_vmsnap_line=$2
_vmsnap_new='
'
set --
exec 5>&1 6>&2 >/dev/null 2>&1
while :; do
  (
    exec </dev/null >&5 2>&6
    while :; do
      case $_vmsnap_line in
        '') ;;
        '?'*) echo "$_vmsnap_line" ;; # is it there?
        '#'*) ;;                      # the mark of a command that was lost
        *) break ;;
      esac
      IFS= read -r _vmsnap_line <&3 || { _vmsnap_line='' && sleep 0.2; }
    done
    case $_vmsnap_line in
      '<'*) eval "${_vmsnap_line#?}" 3>&- 5>&- 6>&- 7>&- ;;
      *) eval "$_vmsnap_line" 3>&- 4>&- 5>&- 6>&- 7>&- ;;
    esac
    # What does not come here, by an `exit` say, leaves the answer to the shell, and so does a command whose
    # traps are yet to run. `command`: it may have functions of these names; 2>: it may have said `set -x`.
    {
      _vmsnap_status=$?
      command set +x
      if [ "$_vmsnap_tells" ]; then
        command trap >&7
        command echo "$_vmsnap_tells none" >&7
        IFS= command read -r _vmsnap_line <&7
        case $_vmsnap_line in
          "$_vmsnap_tells none")
            if IFS= command read -r _vmsnap_mark <&3; then
              case $_vmsnap_mark in
                '#'*)
                  command echo "$_vmsnap_mark" >&6
                  command echo "$_vmsnap_mark $_vmsnap_status" >&5
                  command echo "$_vmsnap_tells answered" >&7
                  ;;
                *) command echo "$_vmsnap_tells next $_vmsnap_mark" >&7 ;;
              esac
            fi
            ;;
        esac
      fi
    } 2>/dev/null
    exit "$_vmsnap_status"
  )
  _vmsnap_status=$? _vmsnap_line=
  if [ "$_vmsnap_tells" ]; then
    echo "$_vmsnap_tells ended" >&7
    _vmsnap_answered=
    while IFS= read -r _vmsnap_told <&7; do
      case $_vmsnap_told in
        "$_vmsnap_tells answered") _vmsnap_answered=y ;;
        "$_vmsnap_tells next "*) _vmsnap_line=${_vmsnap_told#"$_vmsnap_tells next "} ;;
        "$_vmsnap_tells ended") break ;;
      esac
    done
    [ -z "$_vmsnap_answered$_vmsnap_line" ] || continue
  fi
  IFS= read -r _vmsnap_mark <&3 || continue
  case $_vmsnap_mark in
    '#'*) ;;
    *) # its mark was lost: this is the next command
      _vmsnap_line=$_vmsnap_mark
      continue
      ;;
  esac
  echo "$_vmsnap_mark" >&6
  echo "$_vmsnap_mark $_vmsnap_status" >&5
  _vmsnap_mark=
done
