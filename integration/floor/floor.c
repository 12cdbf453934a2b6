/*
 * floor ROOTFS NAME COMMAND...: only the kernel work that config.json beside this file asks for, and nothing else.
 *
 * In order: a group in each v1 hierarchy with its device rules (or one on v2), namespaces (mount, pid, ipc, uts, net), host
 * name, the seven mounts, of which the one of type cgroup is a tmpfs and a bind for each hierarchy, device nodes and links,
 * two kernel parameters, pivot_root, masked and read-only paths, the system call filter, rlimit, capabilities, ids, exec,
 * wait, removal of the groups. What the file does not spell out is here only where the specification or every runtime has
 * it (the default devices and links, a session, the loopback interface up), each said where it is done. Each step is done in
 * the cheapest way that is known, not in the way of any runtime: the process goes into its groups by itself (a pid written
 * from outside waits for a grace period), attributes of a tree of mounts are set in one call, one empty directory covers all.
 *
 * Not here, as the configuration does not ask for it: reading the configuration, checking anything (paths are used as they
 * come), a record of the container, hiding the runtime's own binary, a keyring, errors told to a caller. That is what a
 * runtime has to add; the line that it is measured against is what the kernel takes in any case. On v2 the device rules are
 * left out as well: there they are a program to be written, and the line lies a little low.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILTER 366 /* instructions of the shortest program for docker's profile that we know of */
#define KEEP 0xa80425fbULL /* docker's fourteen capabilities */

static char groups[32][256], names[32][128];
static int doors[32], count, unified;
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
		unified = 1;
		return;
	}
	d = opendir("/sys/fs/cgroup");
	while (d && (e = readdir(d)) && count < 32)
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && strcmp(e->d_name, "unified")) {
			snprintf(names[count], sizeof names[0], "%.100s", e->d_name);
			snprintf(groups[count++], sizeof groups[0], "/sys/fs/cgroup/%.100s/%.100s", e->d_name, name);
		}
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

static void copy_value(const char *group, const char *name)
{
	char path[300], value[256];
	ssize_t n;
	int fd;
	snprintf(path, sizeof path, "%.200s/../%.50s", group, name);
	must(fd = open(path, O_RDONLY | O_CLOEXEC), path);
	must(n = read(fd, value, sizeof value - 1), path);
	close(fd);
	value[n] = 0;
	snprintf(path, sizeof path, "%.200s/%.50s", group, name);
	write_file(path, value);
}

static void make_groups(void)
{
	/* The file's six, and the specification's default devices: full, ptmx and its terminals. */
	static const char *allowed[] = {
		"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm",
	};
	char path[300];
	size_t j;
	int i, fd;
	for (i = 0; i < count; i++) {
		mkdir(groups[i], 0755);
		if (strstr(groups[i], "/cpuset/")) {
			/* Empty in a new group, which lets nobody in: what the group above has. */
			copy_value(groups[i], "cpuset.cpus");
			copy_value(groups[i], "cpuset.mems");
		}
		if (strstr(groups[i], "/devices/")) {
			snprintf(path, sizeof path, "%.250s/devices.deny", groups[i]); write_file(path, "a");
			snprintf(path, sizeof path, "%.250s/devices.allow", groups[i]);
			fd = open(path, O_WRONLY | O_CLOEXEC);
			for (j = 0; j < sizeof allowed / sizeof *allowed; j++)
				if (write(fd, allowed[j], strlen(allowed[j])) < 0)
					perror(path);
			close(fd);
		}
		snprintf(path, sizeof path, "%.250s/%s", groups[i], unified ? "cgroup.procs" : "tasks");
		must(doors[i] = open(path, O_WRONLY | O_CLOEXEC), path);
	}
}

static void mount_groups(void)
{
	struct mount_attr all = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV,
	};
	char to[200];
	int i;
	if (unified) {
		must(mount(groups[0], "sys/fs/cgroup", NULL, MS_BIND, NULL), "bind the group");
		must(mount(NULL, "sys/fs/cgroup", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "ro");
		return;
	}
	must(mount("tmpfs", "sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=755"), "cgroup");
	for (i = 0; i < count; i++) {
		snprintf(to, sizeof to, "sys/fs/cgroup/%.100s", names[i]);
		mkdir(to, 0755);
		must(mount(groups[i], to, NULL, MS_BIND, NULL), to);
	}
	must(syscall(SYS_mount_setattr, AT_FDCWD, "sys/fs/cgroup", AT_RECURSIVE, &all, sizeof all), "cgroups read-only");
}

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(ioctl(fd, SIOCSIFFLAGS, &request), "loopback");
	close(fd);
}

/*
 * The kernel checks and translates the whole program and runs it once for every call number, to find out which it always
 * allows. So what counts is its length, and how far the way of a call is: six comparisons, as in a search tree over docker's
 * profile. The rest only has to be there.
 */
static void load_filter(void)
{
	static struct sock_filter code[FILTER];
	struct sock_fprog program = { FILTER, code };
	int i;
	code[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[1] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (i = 2; i < 8; i++)
		code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000 + i, 1, 0);
	code[8] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	for (i = 9; i < FILTER - 1; i++)
		code[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000 + i, 0, 0);
	code[FILTER - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "filter");
}

static void drop_privileges(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { (unsigned)KEEP, (unsigned)KEEP, 0 }, { 0, 0, 0 } };
	struct rlimit files = { 1024, 1024 }; /* of the file, as what follows */
	gid_t group = 0;
	int cap;
	must(setrlimit(RLIMIT_NOFILE, &files), "rlimit");
	for (cap = 0; cap <= 40; cap++)
		if (!(KEEP >> cap & 1))
			prctl(PR_CAPBSET_DROP, cap);
	must(syscall(SYS_setgroups, 1, &group), "groups");
	must(syscall(SYS_setresgid, 0, 0, 0), "gid");
	must(syscall(SYS_setresuid, 0, 0, 0), "uid");
	must(syscall(SYS_capset, &header, data), "capabilities");
}

struct job {
	char *rootfs;
	char **argv;
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
	static const char *masked[] = {
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	};
	static const char *readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	const char *empty = NULL;
	size_t i;

	for (i = 0; i < (size_t)count; i++)
		must(write(doors[i], "0", 1), groups[i]);
	setsid(); /* so that the terminal of whoever calls does not reach it: not in the file, but every runtime's habit */
	loopback_up(); /* likewise: an interface of a new network namespace is down */
	must(sethostname("floor", 5), "hostname");
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
	mount_groups();
	umask(0);
	for (i = 0; i < sizeof nodes / sizeof *nodes; i++)
		must(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
	umask(022);
	for (i = 0; i < sizeof links / sizeof *links; i++)
		must(symlink(links[i][0], links[i][1]), links[i][1]);
	write_file("proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	write_file("proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "detach the old root");
	for (i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
			mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	for (i = 0; i < sizeof masked / sizeof *masked; i++) {
		/* A file is covered by the null device, a directory by an empty one. */
		if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno != ENOTDIR)
			continue;
		if (empty)
			must(mount(empty, masked[i], NULL, MS_BIND, NULL), masked[i]);
		else
			must(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1"), masked[i]);
		empty = masked[i];
	}
	load_filter();
	drop_privileges();
	execv(job->argv[0], job->argv);
	must(-1, job->argv[0]);
	return 1;
}

int main(int argc, char **argv)
{
	struct job job;
	char path[64];
	int status, i, pid;
	if (argc < 4)
		return 2;
	job.rootfs = argv[1];
	job.argv = argv + 3;
	find_groups(argv[2]);
	make_groups();
	pid = clone(child, stack + sizeof stack, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | SIGCHLD, &job);
	must(pid, "clone");
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
	write_file(path, "0");
	must(waitpid(pid, &status, 0), "wait");
	for (i = 0; i < count; i++)
		rmdir(groups[i]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
