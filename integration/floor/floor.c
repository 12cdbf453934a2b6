/*
 * floor ROOTFS NAME COMMAND...: only the kernel work that a container needs, and nothing else.
 *
 * Namespaces (mount, pid, ipc, uts, net), a cgroup in each v1 hierarchy (or one on v2), the default mounts, device nodes,
 * masked and read-only paths, pivot_root, exec, wait, removal of the cgroups. No parsing, no checks, no security: it is
 * the line that a runtime is measured against, not a runtime.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static char groups[32][256];
static int count;
static char stack[65536];

static void must(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(1);
	}
}

static void find_groups(const char *name)
{
	struct dirent *e;
	DIR *d;
	if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0) {
		snprintf(groups[count++], sizeof groups[0], "/sys/fs/cgroup/%s", name);
		return;
	}
	d = opendir("/sys/fs/cgroup");
	while (d && (e = readdir(d)) && count < 32)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && strcmp(e->d_name, "unified"))
			snprintf(groups[count++], sizeof groups[0], "/sys/fs/cgroup/%.100s/%.100s", e->d_name, name);
	if (d)
		closedir(d);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, text, strlen(text)) < 0)
			perror(path);
		close(fd);
	}
}

struct job {
	char *rootfs;
	char **argv;
	int go;
};

static int child(void *arg)
{
	struct job *job = arg;
	static const struct { const char *name; int major, minor; } nodes[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};
	static const char *links[][2] = {
		{ "/proc/self/fd", "dev/fd" }, { "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
		{ "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" },
	};
	static const char *masked[] = { "/proc/kcore", "/proc/keys", "/proc/timer_list" };
	static const char *readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	char byte;
	size_t i;

	must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "propagation");
	must(mount(job->rootfs, job->rootfs, NULL, MS_BIND | MS_REC, NULL), "bind root");
	must(chdir(job->rootfs), "chdir");
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "proc");
	must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
	mkdir("dev/pts", 0755); mkdir("dev/shm", 0755); mkdir("dev/mqueue", 0755);
	must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "pts");
	must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"), "shm");
	must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "mqueue");
	must(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, NULL), "sys");
	umask(0);
	for (i = 0; i < sizeof nodes / sizeof *nodes; i++)
		must(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
	umask(022);
	for (i = 0; i < sizeof links / sizeof *links; i++)
		must(symlink(links[i][0], links[i][1]), links[i][1]);
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "detach the old root");
	must(sethostname("floor", 5), "hostname");
	for (i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
			mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	for (i = 0; i < sizeof masked / sizeof *masked; i++)
		mount("/dev/null", masked[i], NULL, MS_BIND, NULL);
	must(read(job->go, &byte, 1), "wait for the cgroups");
	execv(job->argv[0], job->argv);
	must(-1, job->argv[0]);
	return 1;
}

int main(int argc, char **argv)
{
	struct job job;
	char path[300], text[32];
	int pipes[2], status, i, pid;
	if (argc < 4)
		return 2;
	job.rootfs = argv[1];
	job.argv = argv + 3;
	must(pipe2(pipes, O_CLOEXEC), "pipe");
	job.go = pipes[0];
	find_groups(argv[2]);
	for (i = 0; i < count; i++) {
		mkdir(groups[i], 0755);
		if (strstr(groups[i], "/cpuset/")) {
			snprintf(path, sizeof path, "%.250s/cpuset.cpus", groups[i]); write_file(path, "0");
			snprintf(path, sizeof path, "%.250s/cpuset.mems", groups[i]); write_file(path, "0");
		}
	}
	pid = clone(child, stack + sizeof stack, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | SIGCHLD, &job);
	must(pid, "clone");
	snprintf(text, sizeof text, "%d", pid);
	for (i = 0; i < count; i++) {
		snprintf(path, sizeof path, "%.250s/cgroup.procs", groups[i]);
		write_file(path, text);
	}
	must(write(pipes[1], "x", 1), "go");
	must(waitpid(pid, &status, 0), "wait");
	for (i = 0; i < count; i++)
		rmdir(groups[i]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
