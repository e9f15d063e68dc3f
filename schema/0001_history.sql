-- prochist history, version 1: what ran on this host, one row per process lifetime.
--
-- Read the views at the end of this file: `processes`, `execs`, `id_changes`,
-- `events`, `gaps`, `boots`, `running`, `failed`. They are what to write SQL
-- against; the tables under them may change with a later version, the views keep
-- their names and columns.
--
-- How it is laid out
--   * Texts repeat, so each distinct text is stored once (`text`), each distinct
--     description of a program once (`image`), each distinct answer to "for whom
--     and where does it run" once (`origin`). A lifetime is then mostly integers.
--   * Times are integer nanoseconds since the Unix epoch, UTC.
--   * NULL means unknown. A column in which 0 or 1 is by far the most frequent
--     value has that value stand for something: SQLite stores 0, 1 and NULL
--     without a byte of content.
--
-- Invariants (`prochist verify` checks them)
--   * a lifetime has one end at most, and it is not before its start;
--   * lifetimes of one pid in one boot do not overlap;
--   * a parent has a smaller id than its children;
--   * `wait_status` is known only where the end was seen (or read from a zombie).

-- One row per boot of a host (and per host name, should it change meanwhile).
CREATE TABLE boot (
    id               INTEGER PRIMARY KEY,
    boot_id          TEXT NOT NULL,     -- /proc/sys/kernel/random/boot_id
    host             TEXT NOT NULL,     -- host name
    machine_id       TEXT,              -- /etc/machine-id
    kernel           TEXT NOT NULL,     -- uname -r
    booted_at_ns     INTEGER NOT NULL,
    first_seen_at_ns INTEGER NOT NULL,  -- first and last time that a recorder
    last_seen_at_ns  INTEGER NOT NULL,  -- of this database was up in this boot
    UNIQUE (boot_id, host)
) STRICT;

-- Every distinct text once. Bytes that are not UTF-8 are written as \xNN.
CREATE TABLE text (
    id    INTEGER PRIMARY KEY,
    hash  INTEGER NOT NULL,  -- 64 bit of the value, for finding it again
    value TEXT NOT NULL
) STRICT;
CREATE INDEX text_hash ON text (hash);

-- Every distinct process image (what a process runs) once.
CREATE TABLE image (
    id            INTEGER PRIMARY KEY,
    comm          INTEGER REFERENCES text (id),   -- the kernel's task name
    exe           INTEGER REFERENCES text (id),   -- resolved file: /proc/PID/exe
    exec_path     INTEGER REFERENCES text (id),   -- path as given to execve
    command_line  INTEGER REFERENCES text (id),   -- argv, shell-quoted
    argv          INTEGER REFERENCES text (id),   -- argv as a JSON array; NULL where it is command_line split at its spaces
    argv_complete INTEGER CHECK (argv_complete IN (0, 1)),  -- 0: argv was cut; NULL: no argv known
    cwd           INTEGER REFERENCES text (id),   -- directory at the execve
    argv_raw      BLOB                            -- NUL-separated bytes; NULL where the texts are exact
) STRICT;
CREATE INDEX image_exe ON image (exe);
CREATE INDEX image_command_line ON image (command_line, comm, cwd);

-- Every distinct origin (for whom and where a process runs) once.
CREATE TABLE origin (
    id           INTEGER PRIMARY KEY,
    hash         INTEGER NOT NULL,              -- 64 bit of all the others
    uid          INTEGER,
    euid         INTEGER,
    gid          INTEGER,
    egid         INTEGER,
    user         INTEGER REFERENCES text (id),  -- name of uid at that time
    login_uid    INTEGER,                       -- audit's login uid; NULL: not from a login
    login_user   INTEGER REFERENCES text (id),
    session      INTEGER,                       -- audit session; NULL: none
    tty          INTEGER REFERENCES text (id),  -- controlling terminal
    cgroup       INTEGER REFERENCES text (id),  -- path
    unit         INTEGER REFERENCES text (id),  -- systemd unit, from the path
    container_id INTEGER REFERENCES text (id)   -- container, from the path
) STRICT;
CREATE INDEX origin_hash ON origin (hash);

-- One row per process lifetime, newest facts.
CREATE TABLE lifetime (
    id            INTEGER PRIMARY KEY,    -- names this lifetime for ever; given in the order of the forks
    boot          INTEGER NOT NULL REFERENCES boot (id),
    pid           INTEGER NOT NULL,       -- the kernel's tgid, in the initial pid namespace
    parent_id     INTEGER REFERENCES lifetime (id) ON DELETE SET NULL,  -- the lifetime that forked it
    ppid          INTEGER,                -- pid of that parent
    reaper_pid    INTEGER,                -- parent at the exit; 0: the same as ppid
    ns_pid        INTEGER,                -- pid in its own pid namespace; 0: the same as pid
    sid           INTEGER,                -- session leader's pid; 0: it leads one itself
    image         INTEGER REFERENCES image (id),
    origin        INTEGER REFERENCES origin (id),

    started_at_ns INTEGER,                -- NULL: only its end was seen
    start_ticks   INTEGER,                -- /proc/PID/stat field 22; kept only while it runs
    start_source  INTEGER NOT NULL CHECK (start_source IN (0, 1)),  -- 0 fork, 1 scan of /proc

    exec_at_ns    INTEGER,                -- newest execve seen
    exec_count    INTEGER NOT NULL,       -- execves seen; the newest is in this row, the others in earlier_exec
    exec_source   INTEGER NOT NULL CHECK (exec_source BETWEEN 0 AND 3), -- of image: 0 none, 1 inherited, 2 proc, 3 bpf
    exec_origin   INTEGER REFERENCES origin (id),  -- at the newest execve; NULL: the same as origin

    ended_at_ns   INTEGER,                -- NULL: running
    ended_after_ns INTEGER,               -- when the end was not seen: the earliest it can have been
    end_source    INTEGER CHECK (end_source IN (1, 2, 3)),  -- NULL running, 1 exit event, 2 resync with /proc, 3 later boot
    wait_status   INTEGER,                -- as wait(2) reports it; NULL: running, or not seen

    is_kernel_thread INTEGER NOT NULL CHECK (is_kernel_thread IN (0, 1)),
    thread_peak   INTEGER NOT NULL,       -- most threads at one time

    -- Cost of the whole life, all threads, from taskstats. NULL: running, or not measured.
    cpu_user_us   INTEGER,
    cpu_system_us INTEGER,
    max_rss_kib   INTEGER,
    read_bytes    INTEGER,
    write_bytes   INTEGER,
    minor_faults  INTEGER,
    major_faults  INTEGER,
    voluntary_switches   INTEGER,
    involuntary_switches INTEGER,

    batch         INTEGER NOT NULL,       -- number of the commit that wrote this row last

    CHECK (ended_at_ns IS NULL OR end_source IS NOT NULL)
) STRICT;
CREATE INDEX lifetime_ended   ON lifetime (ended_at_ns);
CREATE INDEX lifetime_started ON lifetime (started_at_ns);
CREATE INDEX lifetime_pid     ON lifetime (pid);
CREATE INDEX lifetime_parent  ON lifetime (parent_id);
CREATE INDEX lifetime_image   ON lifetime (image);
CREATE INDEX lifetime_batch   ON lifetime (batch);
CREATE INDEX lifetime_running ON lifetime (pid) WHERE end_source IS NULL;
CREATE INDEX lifetime_failed  ON lifetime (ended_at_ns) WHERE wait_status <> 0;
-- "Alive at T": lives shorter than a minute lie near T in lifetime_started; the others are here.
CREATE INDEX lifetime_long    ON lifetime (started_at_ns, ended_at_ns)
    WHERE ended_at_ns - started_at_ns >= 60000000000;

-- The execves of a lifetime before its newest one.
CREATE TABLE earlier_exec (
    lifetime    INTEGER NOT NULL REFERENCES lifetime (id) ON DELETE CASCADE,
    ordinal     INTEGER NOT NULL,  -- 1 for the first execve of the lifetime
    at_ns       INTEGER,           -- NULL: it happened while nobody looked
    image       INTEGER REFERENCES image (id),
    origin      INTEGER REFERENCES origin (id),
    exec_source INTEGER NOT NULL CHECK (exec_source BETWEEN 0 AND 3),
    PRIMARY KEY (lifetime, ordinal)
) STRICT, WITHOUT ROWID;

-- Changes of user and group ids.
CREATE TABLE id_change (
    id        INTEGER PRIMARY KEY,
    lifetime  INTEGER NOT NULL REFERENCES lifetime (id) ON DELETE CASCADE,
    at_ns     INTEGER NOT NULL,
    kind      INTEGER NOT NULL CHECK (kind IN (0, 1)),  -- 0 uid, 1 gid
    real      INTEGER NOT NULL,
    effective INTEGER NOT NULL
) STRICT;
CREATE INDEX id_change_lifetime ON id_change (lifetime);

-- Everything else that the kernel said of a lifetime.
CREATE TABLE event (
    id        INTEGER PRIMARY KEY,
    lifetime  INTEGER NOT NULL REFERENCES lifetime (id) ON DELETE CASCADE,
    at_ns     INTEGER NOT NULL,
    kind      INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 4),  -- 0 sid, 1 comm, 2 ptrace_attach, 3 ptrace_detach, 4 coredump
    detail    INTEGER REFERENCES text (id),  -- comm: the new name; ptrace_attach: "by PID" of the tracer
    other     INTEGER REFERENCES lifetime (id) ON DELETE SET NULL  -- ptrace: the tracer's lifetime
) STRICT;
CREATE INDEX event_lifetime ON event (lifetime);
CREATE INDEX event_other ON event (other) WHERE other IS NOT NULL;

-- Times for which rows may be missing, and how many events were.
CREATE TABLE gap (
    id          INTEGER PRIMARY KEY,
    boot        INTEGER REFERENCES boot (id),
    from_at_ns  INTEGER NOT NULL,
    until_at_ns INTEGER NOT NULL,
    kind        INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 4),  -- 0 overrun, 1 down, 2 blind, 3 suspend, 4 clock_step
    lost        INTEGER,  -- exact number of kernel events; NULL: cannot be known
    detail      TEXT,     -- which source lost them, in words
    CHECK (until_at_ns >= from_at_ns)
) STRICT;
CREATE INDEX gap_until ON gap (until_at_ns);

-- One row per run of a recorder.
CREATE TABLE recording (
    id             INTEGER PRIMARY KEY,
    boot           INTEGER NOT NULL REFERENCES boot (id),
    pid            INTEGER NOT NULL,
    version        TEXT NOT NULL,      -- of prochist
    started_at_ns  INTEGER NOT NULL,   -- events are complete from here on
    stopped_at_ns  INTEGER,            -- NULL: still recording, or it did not stop by itself
    committed_at_ns INTEGER NOT NULL,  -- events are complete up to here
    committed_mono_ns INTEGER NOT NULL,-- the same instant on CLOCK_MONOTONIC
    events         INTEGER NOT NULL,   -- kernel events received
    lost           INTEGER NOT NULL,   -- kernel events lost
    lives          INTEGER NOT NULL,   -- lifetimes begun
    execs          INTEGER NOT NULL,
    execs_described INTEGER NOT NULL,  -- execs whose argv is known
    facts          TEXT NOT NULL       -- JSON: sources, receiver, buffers, lag, rates
) STRICT;

-- Newest sequence number seen on each CPU: what is missing after a pause is known exactly.
CREATE TABLE cpu_sequence (
    cpu  INTEGER PRIMARY KEY,
    boot INTEGER NOT NULL REFERENCES boot (id),
    seq  INTEGER NOT NULL
) STRICT;

-- One row: numbers that must not be used again, whatever is pruned.
CREATE TABLE counter (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    next_lifetime INTEGER NOT NULL,
    batch         INTEGER NOT NULL
) STRICT;
INSERT INTO counter VALUES (1, 1, 0);

-- ---------------------------------------------------------------------------
-- The views
-- ---------------------------------------------------------------------------

-- One row per process lifetime, newest facts.
CREATE VIEW processes AS
SELECT
    l.id,
    l.parent_id,
    b.boot_id,
    b.host,
    l.pid,
    l.ppid,
    iif(l.reaper_pid = 0, l.ppid, l.reaper_pid) AS reaper_pid,
    iif(l.ns_pid = 0, l.pid, l.ns_pid) AS ns_pid,
    comm.value AS comm,
    exe.value AS exe,
    exec_path.value AS exec_path,
    command_line.value AS command_line,
    CASE
        WHEN argv.value IS NOT NULL THEN argv.value
        WHEN command_line.value = '' THEN '[]'
        ELSE '["' || replace(command_line.value, ' ', '","') || '"]'
    END AS argv,
    i.argv_complete,
    cwd.value AS cwd,
    o.uid,
    o.euid,
    o.gid,
    o.egid,
    user.value AS user,
    o.login_uid,
    login_user.value AS login_user,
    o.session,
    tty.value AS tty,
    iif(l.sid = 0, l.pid, l.sid) AS sid,
    cgroup.value AS cgroup,
    unit.value AS unit,
    container.value AS container_id,
    strftime('%Y-%m-%dT%H:%M:%S', l.started_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', l.started_at_ns / 1000 % 1000000) AS started_at,
    l.started_at_ns,
    strftime('%Y-%m-%dT%H:%M:%S', l.ended_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', l.ended_at_ns / 1000 % 1000000) AS ended_at,
    l.ended_at_ns,
    (l.ended_at_ns - l.started_at_ns) / 1e9 AS duration_s,
    CASE
        WHEN l.end_source IS NULL THEN 'running'
        WHEN l.wait_status IS NULL THEN 'unknown'
        WHEN l.wait_status & 127 = 0 THEN 'exited'
        ELSE 'killed'
    END AS state,
    iif(l.wait_status & 127 = 0, l.wait_status >> 8 & 255, NULL) AS exit_code,
    nullif(l.wait_status & 127, 0) AS term_signal,
    CASE l.wait_status & 127
        WHEN 1 THEN 'SIGHUP' WHEN 2 THEN 'SIGINT' WHEN 3 THEN 'SIGQUIT' WHEN 4 THEN 'SIGILL'
        WHEN 5 THEN 'SIGTRAP' WHEN 6 THEN 'SIGABRT' WHEN 7 THEN 'SIGBUS' WHEN 8 THEN 'SIGFPE'
        WHEN 9 THEN 'SIGKILL' WHEN 10 THEN 'SIGUSR1' WHEN 11 THEN 'SIGSEGV' WHEN 12 THEN 'SIGUSR2'
        WHEN 13 THEN 'SIGPIPE' WHEN 14 THEN 'SIGALRM' WHEN 15 THEN 'SIGTERM' WHEN 16 THEN 'SIGSTKFLT'
        WHEN 17 THEN 'SIGCHLD' WHEN 18 THEN 'SIGCONT' WHEN 19 THEN 'SIGSTOP' WHEN 20 THEN 'SIGTSTP'
        WHEN 21 THEN 'SIGTTIN' WHEN 22 THEN 'SIGTTOU' WHEN 23 THEN 'SIGURG' WHEN 24 THEN 'SIGXCPU'
        WHEN 25 THEN 'SIGXFSZ' WHEN 26 THEN 'SIGVTALRM' WHEN 27 THEN 'SIGPROF' WHEN 28 THEN 'SIGWINCH'
        WHEN 29 THEN 'SIGIO' WHEN 30 THEN 'SIGPWR' WHEN 31 THEN 'SIGSYS'
        WHEN 34 THEN 'SIGRTMIN' WHEN 64 THEN 'SIGRTMAX'
        ELSE iif(l.wait_status & 127 BETWEEN 35 AND 63, 'SIGRTMIN+' || ((l.wait_status & 127) - 34),
                 'SIG' || nullif(l.wait_status & 127, 0))
    END AS term_signal_name,
    l.wait_status >> 7 & 1 AS core_dumped,
    CASE l.start_source WHEN 0 THEN 'fork' ELSE 'scan' END AS start_source,
    CASE l.end_source WHEN 1 THEN 'exit' WHEN 2 THEN 'resync' WHEN 3 THEN 'boot' END AS end_source,
    CASE l.exec_source WHEN 0 THEN 'none' WHEN 1 THEN 'inherited' WHEN 2 THEN 'proc' ELSE 'bpf' END AS exec_source,
    l.ended_after_ns,
    l.exec_count,
    l.is_kernel_thread,
    l.thread_peak,
    l.cpu_user_us / 1e6 AS cpu_user_s,
    l.cpu_system_us / 1e6 AS cpu_system_s,
    l.max_rss_kib * 1024 AS max_rss_bytes,
    l.read_bytes,
    l.write_bytes,
    l.minor_faults,
    l.major_faults,
    l.voluntary_switches,
    l.involuntary_switches
FROM lifetime AS l
LEFT JOIN boot AS b ON b.id = l.boot
LEFT JOIN image AS i ON i.id = l.image
LEFT JOIN origin AS o ON o.id = l.origin
LEFT JOIN text AS comm ON comm.id = i.comm
LEFT JOIN text AS exe ON exe.id = i.exe
LEFT JOIN text AS exec_path ON exec_path.id = i.exec_path
LEFT JOIN text AS command_line ON command_line.id = i.command_line
LEFT JOIN text AS argv ON argv.id = i.argv
LEFT JOIN text AS cwd ON cwd.id = i.cwd
LEFT JOIN text AS user ON user.id = o.user
LEFT JOIN text AS login_user ON login_user.id = o.login_user
LEFT JOIN text AS tty ON tty.id = o.tty
LEFT JOIN text AS cgroup ON cgroup.id = o.cgroup
LEFT JOIN text AS unit ON unit.id = o.unit
LEFT JOIN text AS container ON container.id = o.container_id;

-- Lifetimes without an end.
CREATE VIEW running AS SELECT * FROM processes WHERE end_source IS NULL;

-- Lifetimes that ended with a non-zero status or by a signal.
CREATE VIEW failed AS SELECT * FROM processes WHERE exit_code <> 0 OR term_signal IS NOT NULL;

-- One row per execve.
CREATE VIEW execs AS
SELECT
    e.process_id * 16777216 + e.ordinal AS id,
    e.process_id,
    strftime('%Y-%m-%dT%H:%M:%S', e.at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', e.at_ns / 1000 % 1000000) AS at,
    e.at_ns,
    exe.value AS exe,
    exec_path.value AS exec_path,
    command_line.value AS command_line,
    CASE
        WHEN argv.value IS NOT NULL THEN argv.value
        WHEN command_line.value = '' THEN '[]'
        ELSE '["' || replace(command_line.value, ' ', '","') || '"]'
    END AS argv,
    i.argv_complete,
    cwd.value AS cwd,
    o.uid,
    o.gid,
    CASE e.exec_source WHEN 0 THEN 'none' WHEN 1 THEN 'inherited' WHEN 2 THEN 'proc' ELSE 'bpf' END AS source,
    i.argv_raw
FROM (
    SELECT lifetime AS process_id, ordinal, at_ns, image, origin, exec_source FROM earlier_exec
    UNION ALL
    SELECT id, exec_count, exec_at_ns, image, coalesce(exec_origin, origin), exec_source
    FROM lifetime WHERE exec_count > 0
) AS e
LEFT JOIN image AS i ON i.id = e.image
LEFT JOIN origin AS o ON o.id = e.origin
LEFT JOIN text AS exe ON exe.id = i.exe
LEFT JOIN text AS exec_path ON exec_path.id = i.exec_path
LEFT JOIN text AS command_line ON command_line.id = i.command_line
LEFT JOIN text AS argv ON argv.id = i.argv
LEFT JOIN text AS cwd ON cwd.id = i.cwd;

-- Changes of user and group ids over a life.
CREATE VIEW id_changes AS
SELECT
    id,
    lifetime AS process_id,
    strftime('%Y-%m-%dT%H:%M:%S', at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', at_ns / 1000 % 1000000) AS at,
    at_ns,
    CASE kind WHEN 0 THEN 'uid' ELSE 'gid' END AS kind,
    real,
    effective
FROM id_change;

-- Everything else that was said of a process.
CREATE VIEW events AS
SELECT
    e.id,
    e.lifetime AS process_id,
    strftime('%Y-%m-%dT%H:%M:%S', e.at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', e.at_ns / 1000 % 1000000) AS at,
    e.at_ns,
    CASE e.kind WHEN 0 THEN 'sid' WHEN 1 THEN 'comm' WHEN 2 THEN 'ptrace_attach'
        WHEN 3 THEN 'ptrace_detach' ELSE 'coredump' END AS kind,
    t.value AS detail,
    e.other AS other_id
FROM event AS e
LEFT JOIN text AS t ON t.id = e.detail;

-- Times for which rows may be missing. A window is complete when none overlaps it.
CREATE VIEW gaps AS
SELECT
    g.id,
    strftime('%Y-%m-%dT%H:%M:%S', g.from_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', g.from_at_ns / 1000 % 1000000) AS from_at,
    g.from_at_ns,
    strftime('%Y-%m-%dT%H:%M:%S', g.until_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', g.until_at_ns / 1000 % 1000000) AS until_at,
    g.until_at_ns,
    CASE g.kind WHEN 0 THEN 'overrun' WHEN 1 THEN 'down' WHEN 2 THEN 'blind'
        WHEN 3 THEN 'suspend' ELSE 'clock_step' END AS kind,
    g.lost,
    b.boot_id,
    g.detail
FROM gap AS g
LEFT JOIN boot AS b ON b.id = g.boot;

-- One row per boot that was recorded.
CREATE VIEW boots AS
SELECT
    boot_id,
    host,
    machine_id,
    kernel,
    strftime('%Y-%m-%dT%H:%M:%S', booted_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', booted_at_ns / 1000 % 1000000) AS booted_at,
    strftime('%Y-%m-%dT%H:%M:%S', first_seen_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', first_seen_at_ns / 1000 % 1000000) AS first_seen_at,
    strftime('%Y-%m-%dT%H:%M:%S', last_seen_at_ns / 1000000000, 'unixepoch')
        || printf('.%06dZ', last_seen_at_ns / 1000 % 1000000) AS last_seen_at,
    booted_at_ns,
    first_seen_at_ns,
    last_seen_at_ns
FROM boot;
