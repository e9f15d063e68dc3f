-- The view `processes` of prochist, over exports of any number of hosts, in ClickHouse.
--
-- EXPORT_DIR as in duckdb.sql; with a server, a path below its user_files_path, or s3() instead
-- of file(). `host` and `date` come from the names of the directories.
-- Source: clickhouse.com/docs/sql-reference/table-functions/file, "Hive-style partitioning"

CREATE OR REPLACE VIEW processes AS
SELECT
    id, parent_id, boot_id, CAST(host, 'String') AS host, pid, ppid, reaper_pid, ns_pid, comm,
    exe, exec_path, command_line,
    multiIf(argv IS NOT NULL, argv, command_line = '', '[]',
        concat('["', replaceAll(command_line, ' ', '","'), '"]')) AS argv,
    argv_complete, cwd, uid, euid, gid, egid, user, login_uid, login_user, session, tty, sid,
    cgroup, unit, container_id,
    formatDateTime(
        fromUnixTimestamp64Micro(intDiv(started_at_ns, 1000), 'UTC'), '%Y-%m-%dT%H:%i:%S.%fZ') AS started_at,
    started_at_ns,
    formatDateTime(
        fromUnixTimestamp64Micro(intDiv(ended_at_ns, 1000), 'UTC'), '%Y-%m-%dT%H:%i:%S.%fZ') AS ended_at,
    ended_at_ns,
    (ended_at_ns - started_at_ns) / 1e9 AS duration_s,
    state, exit_code, term_signal, term_signal_name, core_dumped, start_source, end_source,
    exec_source, ended_after_ns, exec_count, is_kernel_thread, thread_peak, cpu_user_s,
    cpu_system_s, max_rss_bytes, read_bytes, write_bytes, minor_faults, major_faults,
    voluntary_switches, involuntary_switches,
    toDate(date) AS date
FROM file('EXPORT_DIR/host=*/date=*/*.parquet', 'Parquet')
SETTINGS use_hive_partitioning = 1;

CREATE OR REPLACE VIEW failed AS
SELECT * FROM processes WHERE exit_code <> 0 OR term_signal IS NOT NULL;
