/* SPDX-License-Identifier: MIT */
/* What the verbs ask of the machine. See machine.h. */
#include "command/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int machine_write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		error = -errno;
	close(fd);
	return error;
}

bool machine_find_hierarchy(const char *controller, char *path, size_t len)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	struct mntent *entry;
	bool found = false;

	if (!mounts)
		return false;
	while (!found && (entry = getmntent(mounts))) {
		if (strcmp(entry->mnt_type, "cgroup") || !hasmntopt(entry, controller))
			continue;
		snprintf(path, len, "%s", entry->mnt_dir);
		found = true;
	}
	endmntent(mounts);
	return found;
}

int machine_find_disk(const char *path, unsigned *ret_major, unsigned *ret_minor)
{
	char name[128], text[32] = "";
	struct stat st;
	int fd;

	if (stat(path, &st))
		return -errno;
	if (!major(st.st_dev))
		/* tmpfs, btrfs and overlayfs have an anonymous device number, which names no
		 * disk. */
		return -ENODEV;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/partition", major(st.st_dev),
		 minor(st.st_dev));
	*ret_major = major(st.st_dev);
	*ret_minor = minor(st.st_dev);
	if (access(name, F_OK))
		return 0;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/../dev", major(st.st_dev),
		 minor(st.st_dev));
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) <= 0 ||
	    sscanf(text, "%u:%u", ret_major, ret_minor) != 2) {
		close(fd);
		return -ENODEV;
	}
	close(fd);
	return 0;
}
