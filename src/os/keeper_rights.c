/* SPDX-License-Identifier: MIT */
/*
 * What a keeper may do. An attacker who can write to the program's memory can make the keeper
 * run any code, because the keeper has the same memory. So the keeper must have no right that
 * the program lacks.
 *
 * A filter of system calls leaves only the calls for writing to descriptors that the keeper
 * has: nothing can be opened, made, started, traced or signalled. No capability is in effect.
 * The permitted capabilities stay those of the program. Without them, a process with the
 * program's user but not its capabilities could trace the keeper, and so read the program's
 * memory. When the program gives up its user, groups or capabilities, the keeper follows within
 * a second. All functions run in the keeper: raw system calls only. May call: the kernel.
 */
#include "os/keeper.h"

#include "os/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#endif

/* ------------------------------------------------------------------ the filter */

#define ALLOW        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define REFUSE       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define MAY(call)    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), ALLOW
#define ARGUMENT_1   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]))

/* The ioctl by which the library asks whether memory is the library's own. */
#define USERFAULTFD_CONTINUE _IOWR(0xAA, 0x07, char[32])

/* The calls that the work needs, the calls that following the program's rights needs, fcntl()
 * only for a lease, and ioctl() only for one question. */
static const struct sock_filter filter[] = {
#ifdef OWN_ARCH
	LOAD(arch),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0),
	REFUSE,
#endif
	LOAD(nr),
	MAY(ppoll),
	MAY(pwritev),
	MAY(pread64),
	MAY(fsync),
	MAY(fdatasync),
	MAY(statx),
	MAY(mincore),
	MAY(futex),
	MAY(clock_nanosleep),
	MAY(clock_gettime),
	MAY(accept4),
	MAY(sendto),
	MAY(recvmsg),
	MAY(getsockopt),
	MAY(close),
	MAY(exit),
	MAY(exit_group),
	MAY(setresuid),
	MAY(setresgid),
	MAY(setgroups),
	MAY(capset),
	MAY(prctl),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4),
	ARGUMENT_1,
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, USERFAULTFD_CONTINUE, 0, 1),
	ALLOW,
	REFUSE,
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 1, 0),
	REFUSE,
	ARGUMENT_1,
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETLEASE, 0, 1),
	ALLOW,
	REFUSE,
};

static int set_filter(void)
{
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter),
				     (struct sock_filter *)(uintptr_t)filter};
	long err = os_syscall5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

	if (!err)
		err = os_syscall5(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
	return (int)err;
}

/* ------------------------------------------------------------------ capabilities */

static int set_capabilities(uint64_t effective, uint64_t allowed)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)effective, .permitted = (uint32_t)allowed},
		{.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(allowed >> 32)},
	};

	return (int)os_syscall2(SYS_capset, &head, data);
}

static int drop_capabilities(struct keeper_rights *own)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	long err = os_syscall2(SYS_capget, &head, data);

	if (err)
		return (int)err;
	own->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return set_capabilities(0, own->permitted);
}

int keeper_drop_rights(struct keeper_rights *own)
{
	int err = drop_capabilities(own);

	return err ? err : set_filter();
}

bool keeper_has_rights(const struct keeper_rights *own)
{
	return own->permitted != 0;
}

/* ------------------------------------------------------------------ following the program */

/* Read the number at *at, and move *at behind the number. False: this line has no number there.
 */
static bool number(const char **at, unsigned base, uint64_t *ret_value)
{
	const char *p = *at;
	uint64_t value = 0;
	bool some = false;

	while (*p == ' ' || *p == '\t')
		p++;
	for (;; p++) {
		unsigned digit = *p >= '0' && *p <= '9'   ? (unsigned)(*p - '0')
				 : *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10)
							  : 99;
		if (digit >= base)
			break;
		value = value * base + digit;
		some = true;
	}
	*at = p;
	*ret_value = value;
	return some;
}

/* Return the text behind "NAME:" at the beginning of a line; NULL: no such line. */
static const char *line_of(const char *text, const char *name)
{
	for (const char *p = text; *p; p++) {
		const char *n = name;
		if (p != text && p[-1] != '\n')
			continue;
		while (*n && *n == *p) {
			n++;
			p++;
		}
		if (!*n && *p == ':')
			return p + 1;
		while (*p && *p != '\n')
			p++;
		if (!*p)
			break;
	}
	return NULL;
}

/* Read the numbers of a line. Returns how many numbers were read. */
static uint32_t numbers(const char *at, uint32_t *values, uint32_t most)
{
	uint32_t count = 0;
	uint64_t value;

	while (at && count < most && number(&at, 10, &value))
		values[count++] = (uint32_t)value;
	return count;
}

static bool read_rights(int status_fd, char *text, struct rights *ret_rights)
{
	long len = os_syscall4(SYS_pread64, status_fd, text, KEEPER_STATUS_BYTES - 1, 0);

	if (len <= 0)
		return false;
	text[len] = 0;
	const char *caps = line_of(text, "CapPrm");
	ret_rights->groups =
		numbers(line_of(text, "Groups"), ret_rights->group, KEEPER_GROUPS_MOST);
	return numbers(line_of(text, "Uid"), ret_rights->uid, 3) == 3 &&
	       numbers(line_of(text, "Gid"), ret_rights->gid, 3) == 3 && caps &&
	       number(&caps, 16, &ret_rights->permitted);
}

/* Test that the main thread has neither ended nor been killed. */
bool keeper_leader_lives(struct keeper_rights *own, int leader_fd)
{
	long len = os_syscall4(SYS_pread64, leader_fd, own->text, KEEPER_STATUS_BYTES - 1, 0);
	uint64_t signals = 0;

	if (len <= 0)
		return false;
	own->text[len] = 0;
	const char *state = line_of(own->text, "State"), *pending = line_of(own->text, "SigPnd");
	while (state && (*state == ' ' || *state == '\t'))
		state++;
	return state && *state != 'Z' && *state != 'X' && pending &&
	       number(&pending, 16, &signals) && !(signals & 1ull << (SIGKILL - 1));
}

static bool same_numbers(const uint32_t *a, const uint32_t *b, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

static bool same_rights(const struct rights *a, const struct rights *b)
{
	return same_numbers(a->uid, b->uid, 3) && same_numbers(a->gid, b->gid, 3) &&
	       a->groups == b->groups && same_numbers(a->group, b->group, a->groups) &&
	       a->permitted == b->permitted;
}

/* Take over the program's user, groups and capabilities. When a user changes, the kernel makes
 * the memory undumpable (no core is written). The program's choice is put back. */
static void become(struct keeper_rights *own)
{
	const struct rights *to = &own->now;
	long dumpable = os_syscall5(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
	uint64_t change = 1ull << CAP_SETUID | 1ull << CAP_SETGID;

	set_capabilities(change & own->permitted, own->permitted);
	os_syscall2(SYS_setgroups, to->groups, to->group);
	os_syscall3(SYS_setresgid, to->gid[0], to->gid[1], to->gid[2]);
	os_syscall5(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
	os_syscall3(SYS_setresuid, to->uid[0], to->uid[1], to->uid[2]);
	own->permitted &= to->permitted;
	set_capabilities(0, own->permitted);
	if (dumpable == 1)
		os_syscall5(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
}

void keeper_follow_rights(struct keeper_rights *own, int status_fd)
{
	if (!read_rights(status_fd, own->text, &own->now))
		return;
	if (own->followed && same_rights(&own->now, &own->before))
		return;
	own->followed = true;
	own->before = own->now;
	become(own);
}
