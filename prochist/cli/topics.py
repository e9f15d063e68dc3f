"""What ``prochist help TOPIC`` prints: what one has to know once, in plain text.

Also the source of prochist(1): paragraphs, and blocks that are indented by two blanks.
"""

TOPICS = {
    "times": """\
A time is one of

  now, today, yesterday, boot        today and yesterday begin at midnight
  2026-11-20, 2026-11-20 03:00       also 03:00:15 and 03:00:15.250
  03:00                              today
  2026-11-20T03:00:00Z, …+01:00      RFC 3339
  @1763600000, @1763600000.25        seconds since the epoch
  1h, -1h, 1h ago                    that long before now

and a duration is one of 90s, 5min, 3d2h, 1w, 500ms, with the units us ms s
m/min h d w M (30.44 days) y (365.25 days). Times are of the local time zone
unless they say otherwise or --utc is given.

--since and --until keep what was alive at any moment between them.
--started-since, --started-until, --exited-since and --exited-until look at
the beginning and the end alone. --alive-at keeps what was alive at that very
instant.

Every row has its times twice: text in UTC with microseconds, and an integer
of nanoseconds since the epoch. The kernel counts from the boot, on a clock
that nobody sets; wall time is what the clock showed when the event happened.
When somebody sets the clock, rows before and after keep the time that people
saw, durations stay true, and a gap of kind clock_step says when and how far.
What was found running when recording began is known to 10 ms, everything else
to a microsecond.
""",
    "gaps": """\
An answer is complete when no gap overlaps the window that was asked for.
Every table says so in its last line, -o json has it as "complete" and "gaps",
and --require-complete makes it exit status 4.

  overrun     events came faster than they could be taken, and the kernel
              dropped them. `lost` is their exact number: the kernel numbers
              its events, and it counts what it drops.
  down        no recorder was running. `lost` is exact within one boot,
              because the numbers go on while nobody listens; unknown across a
              boot.
  blind       another program switched process events off for everybody. A
              recorder proves every 5 s that events still come, and subscribes
              again when they do not; how many were missed cannot be known.
  suspend     the machine slept. Nothing ran, nothing was lost.
  clock_step  somebody set the clock. Nothing was lost; times before and after
              are not comparable.

After a loss, /proc is read again: what still runs is right again at once;
what ended meanwhile is closed with end_source `resync` and the interval in
which it ended (ended_after_ns to ended_at_ns).

Lives that were removed (--keep, --max-size, `prochist prune`) are not a gap:
the history begins later then, and a window that reaches further back is not
complete.

systemd keeps the recorder's sources while it restarts
(FileDescriptorStoreMax=): events wait in the kernel, and neither an upgrade
nor a crash leaves a gap. Without systemd, or after `systemctl stop`, it does.
""",
    "views": """\
The database is SQLite; these views are what to write SQL against, and they do
not change:

  processes   one row per lifetime, newest facts
  running     those without an end
  failed      those that ended with a status other than 0, or by a signal
  execs       one row per execve
  id_changes  changes of user and group ids
  events      session leaders, renames, ptrace, core dumps
  gaps        times for which rows may be missing
  boots       one row per boot

`id` names one lifetime for ever; a pid does not. `parent_id` is the lifetime
that forked it, also after that has ended. Unknown is NULL. exit_code is NULL
for what was killed, term_signal for what was not.

argv is a JSON array, command_line the same quoted for a shell. Bytes that are
not UTF-8 show as \\xNN; execs.argv_raw has the bytes then. argv_complete is 0
where argv was cut (beyond 16 KiB of a process that was gone before the rest
could be read). exec_source says where the command line is from: `bpf` the
kernel at the execve, `proc` /proc right after it, `inherited` the parent, as
after any fork, `none` unknown.

  SELECT comm, count(*) FROM failed GROUP BY comm ORDER BY 2 DESC
  SELECT * FROM processes WHERE started_at_ns > unixepoch('now', '-1 hour') * 1000000000
  SELECT e.at, e.command_line FROM execs AS e WHERE e.process_id = 4711

`prochist schema` prints the whole schema with its comments.
""",
}
