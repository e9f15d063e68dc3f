-- The view `processes` of prochist, over exports of any number of hosts, in DuckDB.
--
-- EXPORT_DIR is what `prochist export --format parquet --partition` wrote into, or a directory
-- into which many of these were copied: no two files have the same name. Put its path here:
--
--     sed 's,EXPORT_DIR,/srv/processes,' contrib/fleet/duckdb.sql | duckdb fleet.db
--
-- The columns are those of the view in the SQLite database, plus `date`: the UTC day of the
-- end. Conditions on `host` and `date` decide which files are read at all.
-- Source: duckdb.org/docs/stable/data/partitioning/hive_partitioning

CREATE OR REPLACE VIEW processes AS
SELECT
    id, parent_id, boot_id, host, pid, ppid, reaper_pid, ns_pid, comm, exe, exec_path,
    command_line,
    CASE WHEN argv IS NOT NULL THEN argv WHEN command_line = '' THEN '[]'
        ELSE '["' || replace(command_line, ' ', '","') || '"]' END AS argv,
    argv_complete, cwd, uid, euid, gid, egid, user, login_uid, login_user, session, tty, sid,
    cgroup, unit, container_id,
    strftime(make_timestamp(started_at_ns // 1000), '%Y-%m-%dT%H:%M:%S.%fZ') AS started_at,
    started_at_ns,
    strftime(make_timestamp(ended_at_ns // 1000), '%Y-%m-%dT%H:%M:%S.%fZ') AS ended_at,
    ended_at_ns,
    (ended_at_ns - started_at_ns) / 1e9 AS duration_s,
    state, exit_code, term_signal, term_signal_name, core_dumped, start_source, end_source,
    exec_source, ended_after_ns, exec_count, is_kernel_thread, thread_peak, cpu_user_s,
    cpu_system_s, max_rss_bytes, read_bytes, write_bytes, minor_faults, major_faults,
    voluntary_switches, involuntary_switches,
    date
FROM read_parquet(
    'EXPORT_DIR/host=*/date=*/*.parquet',
    hive_partitioning = true,
    hive_types = {'host': VARCHAR, 'date': DATE}
);

CREATE OR REPLACE VIEW failed AS
SELECT * FROM processes WHERE exit_code <> 0 OR term_signal IS NOT NULL;
