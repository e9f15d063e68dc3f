-- The view `processes` of prochist, over exports of any number of hosts, in Spark SQL.
--
-- EXPORT_DIR as in duckdb.sql, or any path that Spark reads. The types are written down, so
-- that a host named 007 stays one, and times are text in UTC whatever the session's time zone.
-- Source: spark.apache.org/docs/latest/sql-data-sources-parquet.html, partition discovery

SET TIME ZONE 'UTC';

CREATE OR REPLACE TEMPORARY VIEW exported (
    id BIGINT, parent_id BIGINT, boot_id STRING, pid INT, ppid INT, reaper_pid INT, ns_pid INT,
    comm STRING, exe STRING, exec_path STRING, command_line STRING, argv STRING,
    argv_complete TINYINT, cwd STRING, uid BIGINT, euid BIGINT, gid BIGINT, egid BIGINT,
    user STRING, login_uid BIGINT, login_user STRING, session BIGINT, tty STRING, sid INT,
    cgroup STRING, unit STRING, container_id STRING, started_at_ns BIGINT, ended_at_ns BIGINT,
    state STRING, exit_code INT, term_signal INT, term_signal_name STRING, core_dumped TINYINT,
    start_source STRING, end_source STRING, exec_source STRING, ended_after_ns BIGINT,
    exec_count INT, is_kernel_thread TINYINT, thread_peak INT, cpu_user_s DOUBLE,
    cpu_system_s DOUBLE, max_rss_bytes BIGINT, read_bytes BIGINT, write_bytes BIGINT,
    minor_faults BIGINT, major_faults BIGINT, voluntary_switches BIGINT,
    involuntary_switches BIGINT, host STRING, date DATE
) USING parquet OPTIONS (path 'EXPORT_DIR');

CREATE OR REPLACE TEMPORARY VIEW processes AS
SELECT
    id, parent_id, boot_id, host, pid, ppid, reaper_pid, ns_pid, comm, exe, exec_path,
    command_line,
    CASE WHEN argv IS NOT NULL THEN argv WHEN command_line = '' THEN '[]'
        ELSE concat('["', replace(command_line, ' ', '","'), '"]') END AS argv,
    argv_complete, cwd, uid, euid, gid, egid, user, login_uid, login_user, session, tty, sid,
    cgroup, unit, container_id,
    date_format(
        timestamp_micros(started_at_ns div 1000), "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'") AS started_at,
    started_at_ns,
    date_format(
        timestamp_micros(ended_at_ns div 1000), "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'") AS ended_at,
    ended_at_ns,
    (ended_at_ns - started_at_ns) / 1e9D AS duration_s,
    state, exit_code, term_signal, term_signal_name, core_dumped, start_source, end_source,
    exec_source, ended_after_ns, exec_count, is_kernel_thread, thread_peak, cpu_user_s,
    cpu_system_s, max_rss_bytes, read_bytes, write_bytes, minor_faults, major_faults,
    voluntary_switches, involuntary_switches,
    date
FROM exported;

CREATE OR REPLACE TEMPORARY VIEW failed AS
SELECT * FROM processes WHERE exit_code <> 0 OR term_signal IS NOT NULL;
