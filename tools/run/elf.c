/* SPDX-License-Identifier: MIT */
/*
 * Reads the head of a program to see whether the dynamic loader will take the shim in: a program
 * without a loader never does, and a loader of another C library or another machine cannot.
 * May call: libc.
 */
#include "run/elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SCRIPTS_MOST 5
#define HEAD_LEN     512

static bool can_run(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int elf_find(const char *program, char *ret_path, size_t path_len)
{
	const char *at = getenv("PATH");
	int error = ENOENT;

	if (strchr(program, '/')) {
		size_t len = strlen(program);
		if (len >= path_len)
			return ENAMETOOLONG;
		memcpy(ret_path, program, len + 1);
		return access(program, X_OK) ? errno : 0;
	}
	for (at = at ? at : "/bin:/usr/bin"; at; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
		int len = (int)strcspn(at, ":");
		snprintf(ret_path, path_len, "%.*s%s%s", len, at, len ? "/" : "./", program);
		if (can_run(ret_path))
			return 0;
		if (access(ret_path, F_OK) == 0)
			error = EACCES;
	}
	return error;
}

/* Get the path of the loader that an ELF file of this machine names. Returns 0, or why the file
 * has none. */
static const char *loader_of(int fd, char *ret_loader, size_t len)
{
	ElfW(Ehdr) head;
	ElfW(Phdr) part;

	if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
		return "is no program that this machine knows";
	if (head.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32))
		return "is a program of another word size than filemap";
#if defined(__x86_64__)
	if (head.e_machine != EM_X86_64)
		return "is a program for another machine";
#elif defined(__aarch64__)
	if (head.e_machine != EM_AARCH64)
		return "is a program for another machine";
#endif
	for (unsigned i = 0; i < head.e_phnum; i++) {
		off_t at = (off_t)(head.e_phoff + i * sizeof(part));
		if (pread(fd, &part, sizeof(part), at) != (ssize_t)sizeof(part))
			break;
		if (part.p_type != PT_INTERP)
			continue;
		size_t size = part.p_filesz < len ? part.p_filesz : len - 1;
		ssize_t got = pread(fd, ret_loader, size, (off_t)part.p_offset);
		ret_loader[got < 0 ? 0 : got] = 0;
		return NULL;
	}
	return "is linked statically";
}

static const char *loader_refused(int fd)
{
	char theirs[PATH_MAX], ours[PATH_MAX], real[2][PATH_MAX];
	const char *why = loader_of(fd, theirs, sizeof(theirs));
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	bool known = self >= 0 && !loader_of(self, ours, sizeof(ours));

	if (self >= 0)
		close(self);
	if (why || !known || !strcmp(theirs, ours))
		return why;
	if (realpath(theirs, real[0]) && realpath(ours, real[1]) && !strcmp(real[0], real[1]))
		return NULL;
	return "uses another C library than filemap";
}

/* The kernel tells the loader to ignore LD_PRELOAD where a program gets more rights. */
static const char *rights_refused(int fd)
{
	struct stat st;
	char caps[64];

	if (fstat(fd, &st))
		return NULL;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return "is a set-user-ID program";
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return "is a set-group-ID program";
	if (getuid() && fgetxattr(fd, "security.capability", caps, sizeof(caps)) > 0)
		return "gets capabilities of its own";
	return NULL;
}

/* Get the interpreter of a script's first line. With `env`, the program that `env` runs. */
static bool script_next(char *head, char *path, size_t path_len)
{
	char *line = head + 2, *rest;

	line[strcspn(line, "\n")] = 0;
	line += strspn(line, " \t");
	rest = line + strcspn(line, " \t");
	if (*rest)
		*rest++ = 0;
	const char *name = strrchr(line, '/');
	if (name && !strcmp(name, "/env")) {
		char *word = strtok(rest, " \t");
		while (word && (*word == '-' || strchr(word, '=')))
			word = strtok(NULL, " \t");
		return word && elf_find(word, path, path_len) == 0;
	}
	snprintf(path, path_len, "%s", line);
	return *path != 0;
}

const char *elf_refused(const char *program)
{
	char path[PATH_MAX], head[HEAD_LEN + 1];

	snprintf(path, sizeof(path), "%s", program);
	for (int i = 0; i < SCRIPTS_MOST; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		const char *why = NULL;

		if (fd < 0)
			return NULL; /* not readable: nothing is known */
		ssize_t got = pread(fd, head, HEAD_LEN, 0);
		head[got < 0 ? 0 : got] = 0;
		bool script = got > 2 && head[0] == '#' && head[1] == '!';
		if (!script)
			why = got > SELFMAG && !memcmp(head, ELFMAG, SELFMAG) ? loader_refused(fd) : NULL;
		if (!script && !why)
			why = rights_refused(fd);
		close(fd);
		if (!script)
			return why;
		if (!script_next(head, path, sizeof(path)))
			return NULL;
	}
	return NULL;
}
