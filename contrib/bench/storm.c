/* storm: makes processes or threads as fast as one caller can, bounded in time and count.
 *
 *   storm vfork SECONDS            vfork and _exit at once
 *   storm threads SECONDS          a thread that ends at once, and wait for it
 *   storm spawn COUNT PROGRAM [MARK]  posix_spawn with argv "PROGRAM [MARK]NUMBER", and wait
 *   storm pace RATE SECONDS PROGRAM   the same at RATE a second, argv "PROGRAM" alone
 *
 * Prints one line: what, how many, nanoseconds taken, microseconds of CPU time used by this process
 * and those that it made.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 20000000L

extern char **environ;

static long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu_us(int who)
{
	struct rusage used;
	getrusage(who, &used);
	return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL +
	       used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static void *end_at_once(void *unused)
{
	return unused;
}

static void spawn(const char *program, const char *mark, long number)
{
	char text[96];
	char *argv[] = {(char *)program, number < 0 ? NULL : text, NULL};
	pid_t pid;

	snprintf(text, sizeof text, "%s%ld", mark, number);
	if (posix_spawn(&pid, program, NULL, NULL, argv, environ)) {
		fprintf(stderr, "storm: cannot run %s\n", program);
		exit(1);
	}
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	long long began = now_ns();
	long count = 0;

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "vfork")) {
		long long until = began + (long long)(atof(argv[2]) * 1e9);
		while (count < MOST && now_ns() < until) {
			pid_t pid = vfork();
			if (pid == 0)
				_exit(0);
			if (pid < 0)
				break;
			waitpid(pid, NULL, 0);
			count++;
		}
	} else if (!strcmp(argv[1], "threads")) {
		long long until = began + (long long)(atof(argv[2]) * 1e9);
		while (count < MOST && now_ns() < until) {
			pthread_t thread;
			if (pthread_create(&thread, NULL, end_at_once, NULL))
				break;
			pthread_join(thread, NULL);
			count++;
		}
	} else if (!strcmp(argv[1], "spawn") && argc > 3) {
		long most = atol(argv[2]);
		for (; count < most && count < MOST; count++)
			spawn(argv[3], argc > 4 ? argv[4] : "", count);
	} else if (!strcmp(argv[1], "pace") && argc > 4) {
		double rate = atof(argv[2]);
		long most = (long)(rate * atof(argv[3]));
		for (; count < most && count < MOST; count++) {
			long long due = began + (long long)(count / rate * 1e9);
			long long left = due - now_ns();
			if (left > 0) {
				struct timespec t = {left / 1000000000LL, left % 1000000000LL};
				nanosleep(&t, NULL);
			}
			spawn(argv[4], "", -1);
		}
	} else {
		return 2;
	}
	printf("%s %ld %lld %lld\n", argv[1], count, now_ns() - began,
	       cpu_us(RUSAGE_SELF) + cpu_us(RUSAGE_CHILDREN));
	return 0;
}
